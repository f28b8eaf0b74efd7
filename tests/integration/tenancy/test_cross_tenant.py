"""Projections over all tenants: one view of every tenant's events."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.persistence import IntegrityError, OperationalError, Tracking

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import Tenancy, TenantTracking
from tenancy.errors import NotCaughtUp, NotRegistered, TenancyError
from tenancy.storage.cross_tenant import CrossTenantProjection
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.totals import CountAll, Totals
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.deadlines import wait_until
from tests.support.forked import forks, in_child

pytestmark = pytest.mark.usefixtures("no_purge_delay")


@pytest.fixture(params=["sqlite", "schema", "prefix"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables of a fleet on an empty database."""
    if request.param == "sqlite":
        return {"SQLALCHEMY_URL": request.getfixturevalue("sqlite_url")}
    env = {"SQLALCHEMY_URL": request.getfixturevalue("postgres_url")}
    return env if request.param == "schema" else {**env, "TENANCY_SCHEMA": "", "TENANCY_TABLE_PREFIX": "{tenant}_"}


class Kennel(TrainingSchool):
    """An application that only one version of the code follows."""

    name = "Kennel"


@contextmanager
def fleet(env: dict[str, str], url: str | None = None) -> Iterator[Tenancy]:
    """Yield a fleet with a projection over all tenants."""
    with Tenancy(applications=[TrainingSchool], env=env) as tenants:
        tenants.project_across(TrainingSchool, CountAll, Totals, url=url)
        yield tenants


def totals(tenants: Tenancy) -> dict[str, tuple[int, int]]:
    """Return the view's rows by slug."""
    view = tenants.across(CountAll).view
    assert isinstance(view, Totals)
    slugs = {tenant.id: tenant.slug for tenant in tenants}
    return {slugs.get(tenant_id, "gone"): row for tenant_id, row in view.all().items()}


def test_one_view_has_the_events_of_all_tenants(env: dict[str, str]) -> None:
    with fleet(env) as tenants:
        for number, slug in enumerate(("acme", "globex", "initech")):
            tenants.create(slug)
            tenants[slug].get(TrainingSchool).register("Rex", *["sit"] * number)
        with tenants.runner(workers=2) as runner:
            for slug in ("acme", "globex", "initech"):
                runner.wait(slug)
            assert totals(tenants) == {"acme": (1, 0), "globex": (1, 1), "initech": (1, 2)}
            tenants.create("hooli").get(TrainingSchool).register("Fido", "stay")  # created while the runner runs
            runner.wait("hooli")
            assert totals(tenants)["hooli"] == (1, 1)
            status = {(each.tenant, each.follower): each for each in runner.status()}
            assert status["hooli", "CountAll"].state == "current"
            assert status["hooli", "CountAll"].position == 2


def test_it_is_in_the_database_of_its_url(env: dict[str, str], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'reports.db'}"
    with fleet(env, url) as tenants:
        tenants.create("acme").get(TrainingSchool).register("Rex", "sit")
        with tenants.runner(workers=1) as runner:
            runner.wait("acme")
        tenant_id = tenants["acme"].id
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT tenant_id, dogs, tricks FROM tenancy_countall_tracking_totals")
        assert [tuple(row) for row in rows] == [(tenant_id.hex, 1, 1)]
    engine.dispose()


@pytest.mark.parametrize("prefix", ["", "COUNTALL_"])
@pytest.mark.parametrize("variable", ["SQLALCHEMY_SCOPED_SESSION_TOPIC", "SQLALCHEMY_ENGINE_TOPIC"])
def test_the_session_and_engine_of_another_application_are_not_used(
    sqlite_url: str, prefix: str, variable: str
) -> None:
    with fleet({"SQLALCHEMY_URL": sqlite_url, f"{prefix}{variable}": "no_such_module:topic"}) as tenants:
        tenants.init()
        assert totals(tenants) == {}


def test_a_suspended_tenant_is_not_followed_and_catches_up_when_it_is_resumed(env: dict[str, str]) -> None:
    with fleet(env) as tenants:
        tenants.create("acme").get(TrainingSchool).register("Rex")
        tenants.create("globex")
        tenants.suspend("acme")
        with tenants.runner(workers=1) as runner:
            tenants["globex"].get(TrainingSchool).register("Fido")
            runner.wait("globex")
            assert totals(tenants) == {"globex": (1, 0)}
            tenants.resume("acme")
            runner.wait("acme")
            assert totals(tenants) == {"acme": (1, 0), "globex": (1, 0)}


def test_purge_removes_a_tenants_rows_and_refuses_its_late_events(env: dict[str, str]) -> None:
    with fleet(env) as tenants:
        for slug in ("acme", "globex"):
            tenants.create(slug).get(TrainingSchool).register("Rex", "sit")
        with tenants.runner(workers=1) as runner:
            runner.wait("acme")
            runner.wait("globex")
        purged = tenants["acme"]
        tenants.purge("acme")
        assert totals(tenants) == {"globex": (1, 1)}
        across = tenants.across(CountAll)
        view = across.view
        assert isinstance(view, Totals)
        # A process that read the event before the purge.
        with pytest.raises(IntegrityError):
            view.add(across.tracking(purged, "TrainingSchool", 3, 2), tricks=1)
        assert totals(tenants) == {"globex": (1, 1)}
        tenants.create("acme").get(TrainingSchool).register("Bella")
        with tenants.runner(workers=1) as runner:
            runner.wait("acme")
            assert totals(tenants) == {"acme": (1, 0), "globex": (1, 1)}


def test_purge_refuses_late_events_of_an_application_that_its_process_lacks(env: dict[str, str]) -> None:
    with (
        Tenancy(applications=[TrainingSchool, Kennel], env=env) as older,
        Tenancy(applications=[TrainingSchool, Kennel], env=env) as newer,
    ):
        older.project_across(Kennel, CountAll, Totals)
        for tenants in (older, newer):
            tenants.project_across(TrainingSchool, CountAll, Totals)
        acme = older.create("acme")
        across = older.across(CountAll)
        across.open(acme, "Kennel")
        newer.purge("acme")
        view = across.view
        assert isinstance(view, Totals)
        with pytest.raises(IntegrityError):
            view.add(across.tracking(acme, "Kennel", 1, 0), dogs=1)


def test_a_tenant_that_was_never_followed_can_be_purged(env: dict[str, str]) -> None:
    with fleet(env) as tenants:
        tenants.create("acme")
        certificate = tenants.purge("acme")
        assert not any(certificate.left.values())


def test_purge_without_the_code_of_the_view_is_refused_before_anything_is_removed(env: dict[str, str]) -> None:
    with fleet(env) as tenants:
        tenants.create("acme").get(TrainingSchool).register("Rex")
        with tenants.runner(workers=1) as runner:
            runner.wait("acme")
    with Tenancy(env=env) as tenants:
        with pytest.raises(NotRegistered, match="CountAll"):
            tenants.purge("acme")
        assert tenants["acme"].status == "active"
        # As the page about these views says for a projection that is retired.
        registry = tenants.fleet.registry
        settings = registry.rows.fleet_settings
        with registry.writing_rows() as session:
            session.execute(sa.delete(settings).where(settings.c.key == "cross_tenant:CountAll"))
        assert not any(tenants.purge("acme").left.values())


def test_processes_with_different_projections_record_both(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    class CountMore(CountAll):
        """The projection of the other process."""

        name = "CountMore"

    with fleet(env) as tenants, Tenancy(applications=[TrainingSchool], env=env) as others:
        others.project_across(TrainingSchool, CountMore, Totals)
        tenants.create("acme")
        registry, record = tenants.fleet.registry, tenants.fleet.registry.record

        def record_after_the_other(key: str, value: Any) -> None:
            monkeypatch.setattr(registry, "record", record)
            others.fleet.cross_tenant.record()
            record(key, value)

        monkeypatch.setattr(registry, "record", record_after_the_other)
        tenants.fleet.cross_tenant.record()
    with Tenancy(env=env) as tenants, pytest.raises(NotRegistered, match="CountAll, CountMore"):
        tenants.purge("acme")


def test_a_poison_event_stops_its_own_tenant_only(env: dict[str, str]) -> None:
    with fleet(env) as tenants:
        tenants.create("acme").get(TrainingSchool).register("Rex", "sit", "poison", "stay")
        tenants.create("globex").get(TrainingSchool).register("Fido", "sit")
        with tenants.runner(workers=1, max_attempts=1) as runner:
            runner.wait("globex")
            with pytest.raises(NotCaughtUp, match="notification 3"):
                runner.wait("acme")
            # Everything before the poison event has been counted, once.
            assert totals(tenants) == {"acme": (1, 1), "globex": (1, 1)}
            tenants.followers.skip("acme", "CountAll", 3)
            runner.wait("acme")
            assert totals(tenants) == {"acme": (1, 2), "globex": (1, 1)}


def test_a_poison_event_without_a_recorded_position_is_skipped(env: dict[str, str]) -> None:
    class CountAllButRex(CountAll):
        """Cannot process the first event."""

        name = "CountAllButRex"

        def process_event(self, domain_event: Any, tracking: Tracking) -> None:
            if isinstance(domain_event, Dog.Registered):
                raise ValueError(domain_event.name)  # noqa: TRY004 (not about the type)
            super().process_event(domain_event, tracking)

    with Tenancy(applications=[TrainingSchool], env=env) as tenants:
        tenants.project_across(TrainingSchool, CountAllButRex, Totals)
        acme = tenants.create("acme")
        acme.get(TrainingSchool).register("Rex", "sit")
        with tenants.runner(workers=1, max_attempts=1) as runner, pytest.raises(NotCaughtUp, match="notification 1"):
            runner.wait("acme")
        across = tenants.across(CountAllButRex)
        with across.view.transaction() as session:
            session.execute(sa.delete(across.view.tracking_table))
        tenants.followers.skip("acme", "CountAllButRex", 1)
        assert across.position(acme, "TrainingSchool") == 1
        with tenants.runner(workers=1) as runner:
            runner.wait("acme")
        assert list(across.view.all().values()) == [(0, 1)]  # type: ignore[attr-defined]


def test_status_creates_no_tables(env: dict[str, str]) -> None:
    with fleet(env) as tenants:
        tenants.create("acme").get(TrainingSchool).register("Rex")
        (status,) = tenants.followers.status()
        assert (status.state, status.position, status.last) == ("behind", 0, 1)
        assert not tenants.across(CountAll).unchecked().has_tables()


def test_a_position_set_back_is_followed_from_there(env: dict[str, str]) -> None:
    with fleet(env) as tenants:
        tenants.create("acme").get(TrainingSchool).register("Rex", "sit")
        with tenants.runner(workers=1) as runner:
            runner.wait("acme")
            view = tenants.across(CountAll).view
            assert isinstance(view, Totals)
            with view.transaction() as session:
                session.execute(sa.delete(view.totals))
                session.execute(sa.delete(view.tracking_table))
            wait_until(lambda: totals(tenants) == {"acme": (1, 1)}, "the view is complete again")
            assert runner.status()[0].state == "current"


def test_many_events_are_one_transaction(postgres_url: str) -> None:
    with fleet({"SQLALCHEMY_URL": postgres_url}) as tenants:
        school = tenants.create("acme").get(TrainingSchool)
        for _ in range(10):
            school.register("Rex", *["sit"] * 9)
        view = tenants.across(CountAll).view
        commits: list[Any] = []
        sa.event.listen(view.datastore.engine, "commit", commits.append)
        with tenants.runner(workers=1) as runner:
            runner.wait("acme")
        assert totals(tenants) == {"acme": (10, 90)}
        assert 2 <= len(commits) <= 6


def test_an_error_that_the_projection_ignores_undoes_its_event_only(env: dict[str, str]) -> None:
    class Lenient(CountAll):
        """Ignores an error that its view raises after a change."""

        @singledispatchmethod
        def process_event(self, domain_event: Any, tracking: Tracking) -> None:
            """Ignore other events."""

        @process_event.register
        def _(self, domain_event: Dog.TrickAdded, tracking: TenantTracking) -> None:
            with suppress(ValueError), self.view.transaction():
                self.view.add(tracking, tricks=1)
                if domain_event.trick == "poison":
                    raise ValueError(domain_event.trick)

    with Tenancy(applications=[TrainingSchool], env=env) as tenants:
        tenants.project_across(TrainingSchool, Lenient, Totals)
        tenants.create("acme").get(TrainingSchool).register("Rex", "sit", "poison", "stay")
        with tenants.runner(workers=1) as runner:
            runner.wait("acme")
        view = tenants.across(Lenient).view
        assert isinstance(view, Totals)
        assert list(view.all().values()) == [(0, 2)]


def test_a_batch_ends_early_when_the_runner_stops(postgres_url: str) -> None:
    is_running, may_end = threading.Event(), threading.Event()

    class Waiting(CountAll):
        """Waits in each event."""

        def process_event(self, domain_event: Any, tracking: Tracking) -> None:
            is_running.set()
            assert may_end.wait(30)

    with Tenancy(applications=[TrainingSchool], env={"SQLALCHEMY_URL": postgres_url}) as tenants:
        tenants.project_across(TrainingSchool, Waiting, Totals)
        acme = tenants.create("acme")
        acme.get(TrainingSchool).register("Rex", *["sit"] * 9)
        runner = tenants.runner(workers=1)
        runner.start()
        assert is_running.wait(30)
        runner.stop(timeout=0)
        may_end.set()
        assert runner.stop(timeout=30)
        assert tenants.across(Waiting).position(acme, "TrainingSchool") == 1


def test_waiting_for_the_database_of_a_view_delays_no_registry_query(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_reading, may_end = threading.Event(), threading.Event()

    def positions(*_: Any) -> dict[UUID, int]:
        is_reading.set()
        assert may_end.wait(60)
        return {}

    monkeypatch.setattr(CrossTenantProjection, "positions", positions)
    with fleet(env) as tenants:
        tenants.create("acme")
        with tenants.runner(workers=1), ExitStack() as resources:
            resources.callback(may_end.set)
            assert is_reading.wait(30)
            query = threading.Thread(target=resources.enter_context, args=(tenants.fleet.registry_cache.alone(),))
            query.start()
            query.join(30)
            assert not query.is_alive()


def test_a_view_that_cannot_be_read_fails_by_itself(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def positions(*_: Any) -> dict[UUID, int]:
        msg = "unreachable"
        raise OperationalError(msg)

    monkeypatch.setattr(CrossTenantProjection, "positions", positions)
    with fleet(env) as tenants:
        tenants.create("acme").get(TrainingSchool).register("Rex", "sit")
        with tenants.runner(workers=1) as runner:
            wait_until(lambda: runner.health()["views"] is not None, "the view's failure is reported")
            runner.wait("acme")
            health = runner.health()
            assert {name for name, error in health.items() if error is not None} == {"views"}


@forks
def test_child_forked_while_a_view_is_created_has_the_view(env: dict[str, str]) -> None:
    is_creating, may_end = threading.Event(), threading.Event()
    parent = os.getpid()

    class Slow(Totals):
        """Waits while it creates its table in the parent."""

        def create_table(self) -> None:
            if os.getpid() == parent:
                is_creating.set()
                assert may_end.wait(60)
            super().create_table()

    with Tenancy(applications=[TrainingSchool], env=env) as tenants, ExitStack() as resources:
        tenants.project_across(TrainingSchool, CountAll, Slow)
        tenants.init()
        creating = threading.Thread(target=totals, args=(tenants,))
        creating.start()
        resources.callback(creating.join)
        resources.callback(may_end.set)
        assert is_creating.wait(30)
        assert in_child(lambda: totals(tenants)) == {}


def test_wrong_registrations_are_refused(sqlite_url: str) -> None:
    class Lasting(SQLAlchemyTrackingRecorder):
        """A view that cannot forget a tenant."""

    class Another(CountAll):
        """Another projection of the same name."""

        name = "CountAll"

    class Other(TrainingSchool):
        """An application of another fleet."""

        name = "Other"

    with Tenancy(applications=[TrainingSchool], env={"SQLALCHEMY_URL": sqlite_url}) as tenants:
        with pytest.raises(TenancyError, match=r"forget\(tenant\)"):
            tenants.project_across(TrainingSchool, CountAll, Lasting)
        with pytest.raises(NotRegistered, match="Other"):
            tenants.project_across(Other, CountAll, Totals)
        with pytest.raises(NotRegistered, match="CountAll"):
            tenants.across(CountAll)
        tenants.project_across(TrainingSchool, CountAll, Totals)
        with pytest.raises(TenancyError, match="CountAll"):
            tenants.project_across(TrainingSchool, Another, Totals)
        with pytest.raises(NotRegistered):
            tenants.across(Another)
        tenants.project(TrainingSchool, DogCounters, CountersView)

        class Taken(CountAll):
            """Has the name of a projection of single tenants."""

            name = DogCounters.name

        with pytest.raises(TenancyError, match=DogCounters.name):
            tenants.project_across(TrainingSchool, Taken, Totals)
