"""Metrics of a process: what they count, by tenant where the number of tenants is bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from uuid import uuid4

import pytest
from eventsourcing.persistence import IntegrityError, OperationalError
from prometheus_client import CollectorRegistry, generate_latest

from tenancy import Tenancy, Tenant
from tenancy.errors import InvalidArgument, TenantSuspended
from tenancy.instruments import instruments
from tenancy.operations.jobs import JobItem, JobKind, PlannedItem
from tenancy.persistence import TenantDatastore
from tenancy.telemetry.metrics import measure
from tenancy.web.resolvers import by_path
from tenancy.web.wsgi import WSGIMiddleware
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.fleets import fleet

APPENDED = "tenancy_events_appended_total"


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def tenants(url: str) -> Iterator[Tenancy]:
    with fleet(url, ["acme", "globex"]) as tenants:
        yield tenants


class Looking(JobKind):
    name = "looking"

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        return [PlannedItem(tenant, "look") for tenant in tenants]

    def run(self, tenant: Tenant, item: JobItem) -> str:
        raise NotImplementedError  # replaced by the test


def of(tenants: Tenancy, slug: str) -> dict[str, str]:
    return {"tenant": str(tenants[slug].id), "application": "TrainingSchool"}


def test_appends_and_conflicts_by_tenant(tenants: Tenancy, registry: CollectorRegistry) -> None:
    before = tenants["acme"].get(TrainingSchool)  # constructed before it is measured
    before.register("Fido")
    with closing(measure(tenants, registry=registry)):
        dog_id = before.register("Rex", "sit", "beg")
        with before.recorder.transaction():
            before.register("Spot")
        tenants["globex"].get(TrainingSchool).register("Bella")
        assert registry.get_sample_value(APPENDED, of(tenants, "acme")) == 4
        assert registry.get_sample_value(APPENDED, of(tenants, "globex")) == 1
        first: Dog = before.repository.get(dog_id)
        second: Dog = before.repository.get(dog_id)
        for dog in first, second:
            dog.add_trick("stay")
        before.save(first)
        with pytest.raises(IntegrityError):
            before.save(second)
        assert registry.get_sample_value("tenancy_conflicts_total", of(tenants, "acme")) == 1
        assert registry.get_sample_value(APPENDED, of(tenants, "acme")) == 5
        assert b"acme" not in generate_latest(registry)
    assert (TenantDatastore.observer, instruments.counters) == (None, None)
    assert generate_latest(registry) == b""
    before.register("Max")


def test_refusals_by_reason(tenants: Tenancy, registry: CollectorRegistry) -> None:
    def refusals(reason: str, at: str) -> float | None:
        return registry.get_sample_value("tenancy_refusals_total", {"reason": reason, "at": at})

    school = tenants["acme"].get(TrainingSchool)
    service = WSGIMiddleware(lambda *_: [b""], tenants=tenants, resolver=by_path("/t"))
    with closing(measure(tenants, registry=registry)):
        tenants.suspend("acme")
        with pytest.raises(TenantSuspended):
            school.register("Fido")
        for slug in "acme", "nowhere":
            service({"PATH_INFO": f"/t/{slug}/x", "REQUEST_METHOD": "GET"}, lambda *_: lambda _: None)
        assert (refusals("suspended", "call"), refusals("suspended", "request")) == (1, 1)
        assert refusals("not_found", "request") == 1


def test_waits_for_a_connection(postgres_url: str, registry: CollectorRegistry) -> None:
    settings = {"sqlalchemy_pool_size": 1, "sqlalchemy_max_overflow": 0, "sqlalchemy_pool_timeout": 0.2}

    def pool(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"tenancy_pool_{name}", {"database": "tenants", **labels})

    with fleet(postgres_url, ["acme"], **settings) as tenants, closing(measure(tenants, registry=registry)):
        school = tenants["acme"].get(TrainingSchool)
        school.register("Fido")
        assert (pool("limit"), pool("waits_total"), pool("connections", state="in_use")) == (1, 0, 0)
        with school.recorder.transaction() as session:
            session.connection()
            assert (pool("connections", state="in_use"), pool("connections", state="idle")) == (1, 0)
            errors: list[BaseException] = []

            def read() -> None:
                try:
                    school.recorder.max_notification_id()
                except OperationalError as error:
                    errors.append(error)

            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
            assert len(errors) == 1
        # The thread that sends wake-ups may have waited, too.
        assert pool("waits_total") == pool("timeouts_total") in (1, 2)
        assert (pool("wait_seconds_total") or 0) >= 0.2


def test_caches_and_age(tenants: Tenancy, registry: CollectorRegistry) -> None:
    def lookups(cache: str, result: str) -> float:
        found = registry.get_sample_value("tenancy_cache_lookups_total", {"cache": cache, "result": result})
        assert found is not None
        return found

    with closing(measure(tenants, registry=registry)):
        acme = tenants["acme"]
        acme.get(TrainingSchool)
        before = {
            (name, result): lookups(name, result) for name in ("tenants", "applications") for result in ("hit", "miss")
        }
        acme.get(TrainingSchool)
        assert lookups("applications", "hit") == before["applications", "hit"] + 1
        assert lookups("applications", "miss") == before["applications", "miss"] == 1
        assert lookups("tenants", "hit") > before["tenants", "hit"]
        assert (registry.get_sample_value("tenancy_registry_age_seconds") or 99) < 60
        assert registry.get_sample_value("tenancy_applications_cached") == 1


def test_a_runner_and_its_lag(tenants: Tenancy, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenancy.runner.coordinator.SWEEP_INTERVAL", 0.05)
    pipe = {"follower": "Diaries", "leader": "TrainingSchool"}

    def lag(slug: str, unit: str = "events") -> float:
        label = slug if slug == "other" else str(tenants[slug].id)
        return registry.get_sample_value(f"tenancy_follower_lag_{unit}", {"tenant": label, **pipe}) or 0.0

    def processed() -> float | None:
        labels = {"tenant": str(tenants["acme"].id), "follower": "Diaries"}
        return registry.get_sample_value("tenancy_runner_notifications_total", labels)

    with (
        tenants.runner(max_attempts=2) as runner,
        closing(measure(tenants, runner=runner, registry=registry, max_tenants=1)),
    ):
        assert registry.get_sample_value("tenancy_runner_tenants") == 2
        tenants["acme"].get(TrainingSchool).register("Fido", "sit")
        runner.wait("acme", DEADLINE_SECONDS)
        wait_until(lambda: processed() == 2, "they are counted")
        tenants["acme"].get(TrainingSchool).register("Rex", "poison", "sit", "beg")
        wait_until(lambda: lag("acme") == 3, "it is behind the event that fails")
        wait_until(lambda: lag("acme", "seconds") > 0, "for some time")
        assert lag("other") == lag("globex") == 0
        wait_until(lambda: registry.get_sample_value("tenancy_runner_quarantined") == 1, "it is quarantined")


def test_progress_of_jobs(tenants: Tenancy, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenancy.telemetry.metrics._JOBS", 0.0)
    runner = tenants.runner()
    seen: list[dict[str, float | None]] = []
    with closing(measure(tenants, runner=runner, registry=registry)) as measurement:

        def look(*_: object) -> str:
            found: dict[str, float | None] = {}
            for metric in measurement.collect():
                if metric.name == "tenancy_job_items":
                    found = {sample.labels["status"]: sample.value for sample in metric.samples}
            seen.append(found)
            return "done"

        monkeypatch.setattr(Looking, "run", look)
        report = tenants.jobs.run(Looking)
        assert report.is_success
        look()
    assert [(each.get("done"), each.get("running")) for each in seen] == [(0, 1), (1, 1), (None, None)]


def test_one_measurement_in_a_process(tenants: Tenancy, registry: CollectorRegistry) -> None:
    with closing(measure(tenants, registry=registry)) as measurement:
        with pytest.raises(InvalidArgument, match="measures a fleet already"):
            measure(tenants, registry=CollectorRegistry())
        measurement.close()
        with closing(measure(tenants, registry=registry)):
            measurement.close()
            assert instruments.counters is not None
    with pytest.raises(InvalidArgument, match="max_tenants"):
        measure(tenants, registry=registry, max_tenants=-1)


def test_a_scrape_survives_a_dead_registry_and_a_closed_fleet(
    tenants: Tenancy, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(measure(tenants, runner=tenants.runner(), registry=registry)):
        monkeypatch.setattr(type(tenants.jobs), "unfinished", lambda _: (_ for _ in ()).throw(OperationalError("gone")))
        assert b"tenancy_pool_limit" in generate_latest(registry)
        tenants.close()
        assert b"tenancy_pool_limit" not in generate_latest(registry)


def test_tenants_of_another_name_do_not_appear(tenants: Tenancy, registry: CollectorRegistry) -> None:
    slug = "ünï-cödé x"
    tenants.create(slug)
    with closing(measure(tenants, registry=registry, max_tenants=0)):
        tenants[slug].get(TrainingSchool).register(f"Fido {uuid4()}")
        labels = {"tenant": "other", "application": "TrainingSchool"}
        assert registry.get_sample_value(APPENDED, labels) == 1
        assert "cödé" not in generate_latest(registry).decode()
