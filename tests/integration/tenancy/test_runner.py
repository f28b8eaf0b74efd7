"""The runner on real databases: pipes, projections, tenant changes, failures and skips."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.system import SingleThreadedRunner
from prometheus_client import REGISTRY

from tenancy import Tenancy
from tenancy.errors import NotCaughtUp, NotRegistered, RegistryMissing, TenancyError, TenantSuspended
from tenancy.registry.cache import registry_caches
from tenancy.runner.assignments import Assignment
from tenancy.runner.monitor import FollowerMonitor, FollowerStatus
from tenancy.runner.sweep import Sweep
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import SYSTEM, Diaries, Summaries
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.fleets import check, fleet, recorded_events

SECRET = "Sesame-4711"  # noqa: S105 (it must not leak)


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def tenants(request: pytest.FixtureRequest) -> Iterator[Tenancy]:
    with fleet(request.getfixturevalue(request.param), ["acme", "globex"]) as tenants:
        yield tenants


def state(tenants: Tenancy, slug: str, follower: str = "Diaries") -> str:
    return one(tenants, slug, follower).state


def one(tenants: Tenancy, slug: str, follower: str = "Diaries") -> FollowerStatus:
    (found,) = (each for each in tenants.followers.status() if (each.tenant, each.follower) == (slug, follower))
    return found


def test_runs_every_pipe_and_projection_of_every_tenant(tenants: Tenancy) -> None:
    before = {tenants["acme"].get(TrainingSchool).register("Fido", "sit"): ["Fido", "sit"]}
    with tenants.runner(workers=2) as runner:
        dog_id = tenants["globex"].get(TrainingSchool).register("Rex", "beg", "roll")
        tenants["globex"].get(TrainingSchool).teach(dog_id, "heel")
        for slug in ("acme", "globex"):
            runner.wait(slug, DEADLINE_SECONDS)
        check(tenants, "acme", before)
        check(tenants, "globex", {dog_id: ["Rex", "beg", "roll", "heel"]})
        assert {each.state for each in runner.status()} == {"current"}
        assert {each.owner for each in runner.status()} == {runner.owner}
        assert {each.lag for each in runner.status()} == {0}
        assert len(runner.status()) == 6


def test_positions_are_read_in_batches(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between batches, other threads may read registry changes through the same connection."""
    looked_up: list[int] = []
    locate = Sweep.locate

    def count(self: Sweep, assignments: Sequence[Assignment]) -> None:
        looked_up.append(len(assignments))
        locate(self, assignments)

    monkeypatch.setattr(Sweep, "locate", count)
    monkeypatch.setattr("tenancy.runner.coordinator._LOCATE_BATCH", 2)
    dog_id = tenants["globex"].get(TrainingSchool).register("Rex", "beg")
    with tenants.runner(workers=2) as runner:
        runner.wait("globex", DEADLINE_SECONDS)
        check(tenants, "globex", {dog_id: ["Rex", "beg"]})
        wait_until(lambda: len(looked_up) >= len(runner.status()) / 2, "all positions are known")
    assert max(looked_up) <= 2


def test_same_results_as_the_library_runner(tenants: Tenancy) -> None:
    """The library's runner processes the events of one tenant, and ours the same events of another one."""
    school, copy = tenants["acme"].get(TrainingSchool), tenants["globex"].get(TrainingSchool)
    for number in range(20):
        dog_id = school.register(f"Dog {number}", "sit")
        school.teach(dog_id, f"trick {number}")
    copy.recorder.insert_events(
        [
            event
            for notification in school.recorder.select_notifications(start=None, limit=1000)
            for event in school.recorder.select_events(
                notification.originator_id,
                gt=notification.originator_version - 1,
                lte=notification.originator_version,
            )
        ]
    )
    with tenants.runner() as runner:
        runner.wait("globex", DEADLINE_SECONDS)
    one_thread: SingleThreadedRunner[Any] = SingleThreadedRunner(SYSTEM, env=tenants.env("acme"))
    with one_thread:
        # Pull the existing events as the library does when prompted.
        for leader, follower in SYSTEM.edges:
            one_thread.apps[follower].pull_and_process(leader)  # type: ignore[attr-defined]
        for cls in (TrainingSchool, Diaries, Summaries):
            ours: Application[Any] = tenants["globex"].get(cls)
            theirs: Application[Any] = one_thread.get(cls)
            assert recorded_events(ours) == recorded_events(theirs)
            for leader in SYSTEM.follows.get(cls.name, ()):
                positions = [each.recorder.max_tracking_id(leader) for each in (ours, theirs)]  # type: ignore[attr-defined]
                assert positions[0] == positions[1] is not None


def test_tenant_changes_while_it_runs(tenants: Tenancy) -> None:
    with tenants.runner() as runner:
        tenants.create("new")
        dog_id = tenants["new"].get(TrainingSchool).register("Fido", "sit")
        runner.wait("new", DEADLINE_SECONDS)
        check(tenants, "new", {dog_id: ["Fido", "sit"]})
        tenants.suspend("new")
        with pytest.raises(TenantSuspended):
            runner.wait("new", DEADLINE_SECONDS)
        wait_until(lambda: "new" not in {each.tenant for each in runner.status()}, "it is released")
        tenants.resume("new")
        tenants["new"].get(TrainingSchool).teach(dog_id, "beg")
        runner.wait("new", DEADLINE_SECONDS)
        check(tenants, "new", {dog_id: ["Fido", "sit", "beg"]})
        tenants.rename("new", "renamed")
        tenants["renamed"].get(TrainingSchool).teach(dog_id, "roll")
        runner.wait("renamed", DEADLINE_SECONDS)
        tenants.purge("renamed")
        dog_id = tenants.create("new").get(TrainingSchool).register("Rex")
        runner.wait("new", DEADLINE_SECONDS)
        check(tenants, "new", {dog_id: ["Rex"]})


def test_rolled_back_events_do_not_count_as_lag(tenants: Tenancy) -> None:
    school = tenants["acme"].get(TrainingSchool)
    recorder: Any = school.recorder
    with tenants.runner() as runner:
        with recorder.transaction() as session:
            school.register("Ghost", "sit")
            session.rollback()
        dog_id = school.register("Fido", "sit")
        runner.wait("acme", DEADLINE_SECONDS)
        check(tenants, "acme", {dog_id: ["Fido", "sit"]})
        with recorder.transaction() as session:
            school.register("Ghost", "sit")
            session.rollback()
        # On PostgreSQL, the sequence stays ahead permanently.
        wait_until(lambda: {each.lag for each in runner.status()} == {0}, "it is known that there is no event")
        assert {each.lag for each in tenants.followers.status()} == {0}  # without this process's assignments


def test_failure_stops_only_that_follower_of_that_tenant(
    tenants: Tenancy, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    sick, well = tenants["acme"].get(TrainingSchool), tenants["globex"].get(TrainingSchool)
    with tenants.runner(max_attempts=2) as runner:
        dog_id = sick.register("Fido", "sit", f"poison {SECRET}", "beg")
        with pytest.raises(
            NotCaughtUp,
            match=r"quarantined at notification 3 of 'TrainingSchool' \(tests.samples.training_school.system.Poisoned",
        ) as e:
            runner.wait("acme", DEADLINE_SECONDS)
        other = well.register("Rex", "sit")
        runner.wait("globex", DEADLINE_SECONDS)
        check(tenants, "globex", {other: ["Rex", "sit"]})
        assert tenants.projection(DogCounters, "acme").view.get_subsequent_event_counter() == 3
        failure = one(tenants, "acme").failure
        assert failure is not None
        assert (failure.notification_id, failure.attempts, failure.is_quarantined) == (3, 2, True)
        assert failure.frames[-1].startswith("tests.samples.training_school.system:Diaries._:")
        assert tenants["acme"].get(Diaries).entries(dog_id) == ["Fido", "sit"]
        with pytest.raises(TenancyError, match="notification 2 cannot be skipped"):
            tenants.followers.skip("acme", "Diaries", 2)
        with pytest.raises(TenancyError, match="'Dairies' is not part of this fleet"):
            tenants.followers.retry("acme", "Dairies")
        assert [each.follower for each in tenants.followers.retry("acme")] == ["Diaries"]
        wait_until(lambda: state(tenants, "acme") == "quarantined", "it fails again")
        tenants.followers.skip("acme", "Diaries", 3, actor="ops")
        runner.wait("acme", DEADLINE_SECONDS)
        assert tenants["acme"].get(Diaries).entries(dog_id) == ["Fido", "sit", "beg"]
        assert state(tenants, "acme") == "current"
        assert [(each.action, each.actor, each.remark) for each in tenants.history("acme")][-1] == (
            "skip",
            "ops",
            "Diaries: notification 3 of TrainingSchool",
        )
        registry = tenants.fleet.registry
        with registry.reading() as session:
            rows = [repr(session.execute(sa.select(table)).all()) for table in registry.rows.metadata.tables.values()]
    assert SECRET not in "".join(rows) + caplog.text + "".join(capfd.readouterr()) + str(e.value)
    assert all(SECRET not in repr(vars(record)) for record in caplog.records)


def test_quarantine_outlives_the_process_and_goes_with_the_tenant(tenants: Tenancy) -> None:
    with tenants.runner(max_attempts=1) as runner:
        tenants["acme"].get(TrainingSchool).register("Fido", "exit 1")
        with pytest.raises(NotCaughtUp, match="SystemExit"):
            runner.wait("acme", DEADLINE_SECONDS)
    first = one(tenants, "acme").failure
    with tenants.runner(max_attempts=1) as runner:
        with pytest.raises(NotCaughtUp, match="quarantined"):
            runner.wait("acme", DEADLINE_SECONDS)
        assert one(tenants, "acme").failure == first
        certificate = tenants.purge("acme")
    assert certificate.left["registry rows"] == 0
    registry = tenants.fleet.registry
    with registry.reading() as session:
        assert session.execute(sa.select(registry.rows.failures)).all() == []


def test_resolved_failure_is_cleared(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = threading.Event()
    failing.set()
    policy = Diaries.process_event

    def process_event(self: Diaries, domain_event: Any, tracking: Any) -> None:
        if failing.is_set():
            raise ZeroDivisionError
        policy(self, domain_event, tracking)

    monkeypatch.setattr(Diaries, "process_event", process_event)
    with tenants.runner(max_attempts=1000) as runner:
        dog_id = tenants["acme"].get(TrainingSchool).register("Fido", "sit")
        wait_until(lambda: state(tenants, "acme") == "retrying", "it fails")
        with pytest.raises(NotCaughtUp, match=r"fails and is being retried \(builtins.ZeroDivisionError\)"):
            runner.wait("acme", timeout=0)
        failing.clear()
        runner.wait("acme", DEADLINE_SECONDS)
        check(tenants, "acme", {dog_id: ["Fido", "sit"]})
        wait_until(lambda: state(tenants, "acme") == "current", "the failure is cleared")


def test_policy_refused_by_another_tenant_is_quarantined(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants.suspend("globex")
    monkeypatch.setattr(Diaries, "process_event", lambda *_: tenants["globex"].get(TrainingSchool))
    with tenants.runner(max_attempts=1) as runner:
        tenants["acme"].get(TrainingSchool).register("Fido")
        with pytest.raises(NotCaughtUp, match=r"quarantined at notification 1 .*TenantSuspended") as caught:
            runner.wait("acme", DEADLINE_SECONDS)
    assert "globex" not in str(caught.value)


def test_tenant_released_during_a_slice_leaves_no_metrics(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = tenants["acme"]
    reached, go_on = threading.Event(), threading.Event()
    process = Diaries.process_event

    def process_event(self: Diaries, domain_event: Any, tracking: Any) -> None:
        if tracking.notification_id > 1:
            reached.set()
            assert go_on.wait(20)
        process(self, domain_event, tracking)

    monkeypatch.setattr(Diaries, "process_event", process_event)
    with tenants.runner() as runner:
        acme.get(TrainingSchool).register("Fido", "sit")
        assert reached.wait(20)
        tenants.suspend("acme")
        wait_until(lambda: not runner._assignments.holds(acme.id), "it is released")  # noqa: SLF001 (nothing else says when)
        go_on.set()
    assert runner.stop()
    samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
    assert [sample for sample in samples if sample.labels.get("tenant") == str(acme.id)] == []


def test_evicted_and_reconstructed_application_is_followed(postgres_url: str) -> None:
    slugs = [f"tenant-{number}" for number in range(6)]
    with fleet(postgres_url, slugs, tenancy_max_applications=2) as tenants, tenants.runner() as runner:
        expected: dict[str, Any] = {slug: {} for slug in slugs}
        for number in range(3):
            for slug in slugs:
                dog_id = tenants[slug].get(TrainingSchool).register(f"Dog {number}", "sit")
                expected[slug][dog_id] = [f"Dog {number}", "sit"]
        for slug in slugs:
            runner.wait(slug, DEADLINE_SECONDS)
            check(tenants, slug, expected[slug])


def test_unstarted_runner_can_be_stopped(tenants: Tenancy) -> None:
    assert tenants.runner().stop()


def test_missing_registry_names_the_remedy(postgres_url: str) -> None:
    with (
        Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": postgres_url}) as tenants,
        pytest.raises(RegistryMissing, match="tenancy init"),
    ):
        tenants.runner().start()


def test_status_and_skip_without_application_code(tenants: Tenancy) -> None:
    with tenants.runner(max_attempts=1) as runner:
        tenants["acme"].get(TrainingSchool).register("Fido", "poison")
        with pytest.raises(NotCaughtUp):
            runner.wait("acme", DEADLINE_SECONDS)
        env = {"SQLALCHEMY_URL": tenants.settings.url.render_as_string(hide_password=False)}
        with Tenancy(env=env) as operators:
            assert state(operators, "acme") == "quarantined"
            operators.followers.skip("acme", "Diaries", 2)
            with pytest.raises(TenancyError, match="no applications are registered"):
                operators.runner()
        runner.wait("acme", DEADLINE_SECONDS)


def test_skip_applies_to_the_tenant_despite_a_concurrent_rename(
    tenants: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tenants.runner(max_attempts=1) as runner:
        acme = tenants["acme"]
        acme.get(TrainingSchool).register("Fido", "poison")
        with pytest.raises(NotCaughtUp):
            runner.wait("acme", DEADLINE_SECONDS)
    move = FollowerMonitor._move  # noqa: SLF001 (between its two steps)

    def rename(*args: Any) -> None:
        move(*args)
        tenants.rename("acme", "old")
        tenants.rename("globex", "acme")

    monkeypatch.setattr(FollowerMonitor, "_move", rename)
    tenants.followers.skip("acme", "Diaries", 2)
    assert [change.action for change in tenants.history("old")][-2:] == ["rename", "skip"]
    assert "skip" not in {change.action for change in tenants.history("acme")}


def test_invalid_projections_and_runners_are_refused() -> None:
    with Tenancy(applications=[TrainingSchool], env={"SQLALCHEMY_URL": "sqlite:///unused.db"}) as tenants:
        with pytest.raises(NotRegistered, match="'Diaries'"):
            tenants.project(Diaries, DogCounters, CountersView)
        with pytest.raises(NotRegistered, match=r"tenants\.project"):
            tenants.projection(DogCounters, "acme")
        with pytest.raises(TenancyError, match="at least 1"):
            tenants.runner(workers=0)
        with pytest.raises(TenancyError, match="nothing to do"):
            tenants.runner()


def test_registry_is_closed_with_the_fleet(postgres_url: str) -> None:
    """The library constructs a factory for each leader of a follower, and never closes it."""
    gc.collect()
    registry_caches.drain()
    before = set(registry_caches)  # fleets of loaded modules
    with fleet(postgres_url, ["acme"]) as tenants, tenants.runner() as runner:
        assert len(list(registry_caches)) == len(before) + 1
        tenants["acme"].get(TrainingSchool).register("Fido", "sit")
        runner.wait("acme", DEADLINE_SECONDS)
    del tenants, runner
    gc.collect()
    registry_caches.drain()
    assert set(registry_caches) <= before
