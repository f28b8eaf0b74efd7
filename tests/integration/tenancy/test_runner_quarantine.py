"""Failures of followers, in this process and in other ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from eventsourcing_sqlalchemy.naming import TableName
from tenancy import Tenancy
from tenancy.errors import TenancyError
from tenancy.following.pipes import Pipe, Pipes
from tenancy.operations import doctor
from tenancy.runner.assignments import Assignment, Assignments
from tenancy.runner.failures import FailureStore
from tenancy.runner.leases import BUCKETS, bucket_of
from tenancy.runner.quarantine import Quarantine
from tenancy.runner.ready_queue import ReadyQueue
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import SYSTEM
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.fleets import check, fleet


def quarantine(tenants: Tenancy) -> Quarantine:
    assignments = Assignments(Pipes(tenants.application_specs()), lambda _: None, bucket_of)
    return Quarantine(FailureStore(tenants.fleet.registry), assignments, ReadyQueue(1), max_attempts=2)


def test_follower_quarantined_elsewhere_has_no_attempts_left(tenants: Tenancy) -> None:
    """It may run here before this process reads the failure."""
    acme = tenants.create("acme")
    assignment = Assignment(
        acme, Pipe("Shop", "Follower"), TableName(None, "events"), TableName(None, "tracking"), lacks_tables=False
    )
    first, second = quarantine(tenants), quarantine(tenants)
    for _ in range(2):
        first.record_failure(ZeroDivisionError(), assignment, 1, ["Shop"])
    second.record_failure(ZeroDivisionError(), assignment, 1, ["Shop"])
    failure = FailureStore(tenants.fleet.registry).get(assignment.key)
    assert failure is not None
    assert (failure.attempts, failure.is_quarantined) == (3, True)
    second.record_failure(ZeroDivisionError(), assignment, 2, ["Shop"])  # another event
    assert [each.attempts for each in FailureStore(tenants.fleet.registry).all().values()] == [1]


def test_locked_tenant_row_delays_only_the_stored_failure(postgres_url: str) -> None:
    settings = {"sqlalchemy_lock_timeout": 0}  # a lock is waited for without limit
    with fleet(postgres_url, ["acme", "globex"], **settings) as tenants, tenants.runner(max_attempts=2) as runner:
        acme, rows = tenants["acme"], tenants.fleet.registry.rows
        known, failure_store = runner._quarantine, FailureStore(tenants.fleet.registry)  # noqa: SLF001 (failures that are not stored yet)
        engine = sa.create_engine(tenants.settings.url)
        with engine.connect() as connection:
            connection.execute(sa.select(rows.tenants).where(rows.tenants.c.id == acme.id).with_for_update())
            acme.get(TrainingSchool).register("Fido", "poison")
            key = (acme.id, "Diaries")
            wait_until(lambda: (failure := known.get(key)) is not None and failure.is_quarantined, "it is quarantined")
            dog_id = tenants["globex"].get(TrainingSchool).register("Rex", "sit")
            runner.wait("globex", DEADLINE_SECONDS)
            check(tenants, "globex", {dog_id: ["Rex", "sit"]})
            known.refresh()  # as the coordinator does, with exclusive use of the registry
            assert failure_store.all() == {}
        engine.dispose()
        wait_until(lambda: list(failure_store.all()) == [key], "it is stored")


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_missing_tables_are_retried(
    database: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A projection's table was dropped. One that is still to be created is waited for instead."""
    monkeypatch.setattr("tenancy.runner.failures._MAX_DELAY", 0.2)
    env = {"SQLALCHEMY_URL": request.getfixturevalue(database)}
    with Tenancy(system=SYSTEM, env=env) as tenants:
        tenants.project(TrainingSchool, DogCounters, CountersView)
        acme = tenants.create("acme")
        acme.get(TrainingSchool).register("Fido", "sit")
        specs = tenants.fleet.inventory.specs(acme.placement, tenants.application_specs())
        (table,) = (spec.name for spec in specs if spec.name.name.endswith("dogcounters_tracking"))
        with tenants.fleet.shard.datastore.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP TABLE {table}")
        with tenants.runner(max_attempts=2) as runner:
            key = (tenants["acme"].id, "DogCounters")
            known = runner._quarantine  # noqa: SLF001 (the store lags behind)
            wait_until(lambda: (failure := known.get(key)) is not None and failure.attempts > 2, "it is retried")
            (shown,) = (each for each in tenants.followers.status() if each.follower == "DogCounters")
            assert shown.state == "retrying"
            assert shown.failure is not None
            code = "42P01" if database == "postgres_url" else "SQLITE_ERROR"
            assert shown.failure.error == f"eventsourcing.persistence.ProgrammingError {code}"
            with pytest.raises(
                TenancyError, match="failed before reading a notification: notification 1 cannot be skipped"
            ):
                tenants.followers.skip("acme", "DogCounters", 1)
            assert {each.level for each in doctor.repair(tenants.fleet)} == {"ok"}
            runner.wait("acme", DEADLINE_SECONDS)
            assert tenants.projection(DogCounters, "acme").view.get_created_event_counter() == 1
            wait_until(lambda: known.get(key) is None, "the failure is resolved")
    assert "failed before reading a notification, retrying in" in caplog.text
    assert "None" not in caplog.text


def test_delay_stays_limited_after_many_attempts(tenants: Tenancy) -> None:
    assignment = Assignment(
        tenants.create("acme"),
        Pipe("Shop", "F"),
        TableName(None, "events"),
        TableName(None, "tracking"),
        lacks_tables=False,
    )
    known = quarantine(tenants)
    for _ in range(3):
        known.record_failure(ZeroDivisionError(), assignment, None, ["Shop"])
    many = replace(known._known[assignment.key], attempts=5000)  # noqa: SLF001 (otherwise it would take a day)
    known._known[assignment.key] = many  # noqa: SLF001 (as above)
    known.record_failure(ZeroDivisionError(), assignment, None, ["Shop"])
    failure = known.get(assignment.key)
    assert failure is not None
    assert (failure.attempts, failure.is_quarantined) == (5001, False)


def test_worker_stores_only_its_own_failure(tenants: Tenancy) -> None:
    """Failures that could not be stored earlier may still have to wait."""
    first, second = (
        Assignment(
            tenants.create(slug),
            Pipe("Shop", "Follower"),
            TableName(None, "events"),
            TableName(None, "tracking"),
            lacks_tables=False,
        )
        for slug in ("acme", "globex")
    )
    known, failure_store = quarantine(tenants), FailureStore(tenants.fleet.registry)
    known.record_failure(ZeroDivisionError(), first, 1, ["Shop"])
    known._unwritten.add(first.key)  # noqa: SLF001 (as if storing it had failed)
    failure_store.clear(first.key)
    known.record_failure(ZeroDivisionError(), second, 1, ["Shop"])
    assert list(failure_store.all()) == [second.key]
    known.refresh()
    assert failure_store.all().keys() == {first.key, second.key}


def test_failure_of_a_slice_whose_tenant_is_being_released(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower can run again after a retry elsewhere and a new assignment."""
    with fleet(sqlite_url, ["acme"]) as tenants:
        runner = tenants.runner(max_attempts=1)
        coordinator, assignments, ready = runner._coordinator, runner._assignments, runner._ready  # noqa: SLF001 (without the threads)
        coordinator.start()
        assignment = next(assignment for assignment in assignments.all() if assignment.pipe.follower == "Diaries")

        def fail(*_: object) -> None:
            runner._quarantine.record_failure(ZeroDivisionError(), assignment, 1, ["TrainingSchool"])  # noqa: SLF001 (as a worker does)

        monkeypatch.setattr(coordinator._application_cache, "forget", fail)  # noqa: SLF001 (during the release)
        coordinator._apply_reassignment(assignments.hold(()))  # noqa: SLF001 (as when another process gets the leases)
        assert [failure.follower for failure in tenants.followers.retry("acme")] == ["Diaries"]
        coordinator._apply_reassignment(assignments.hold(range(BUCKETS)))  # noqa: SLF001 (as above)
        before = len(ready)
        ready.add(assignment.key, ["TrainingSchool"])
        assert len(ready) == before + 1
        runner.stop()
