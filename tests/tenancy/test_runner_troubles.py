"""What a process makes of failures that it has met, or another one before it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from eventsourcing_sqlalchemy.naming import TableName
from tenancy import Tenancy
from tenancy.errors import TenancyError
from tenancy.operations import doctor
from tenancy.runner.assignments import Assignment, Assignments
from tenancy.runner.failures import FailureStore
from tenancy.runner.leases import BUCKETS, bucket_of
from tenancy.runner.pipes import Pipe, Pipes
from tenancy.runner.quarantine import Quarantine
from tenancy.runner.ready_queue import ReadyQueue
from tests.contract.counters_view import CountersView
from tests.deadlines import wait_until
from tests.tenancy.fleets import check, fleet
from tests.tenancy.kennel import SYSTEM, DogCounters, School


def quarantine(tenants: Tenancy) -> Quarantine:
    assignments = Assignments(Pipes(tenants.application_specs()), lambda: None, bucket_of)
    return Quarantine(FailureStore(tenants.fleet.registry), assignments, ReadyQueue(1), max_attempts=2)


def test_follower_that_has_stopped_elsewhere_has_no_attempts_left(tenants: Tenancy) -> None:
    """It may get a turn here before this process has learned of it."""
    acme = tenants.create("acme")
    assignment = Assignment(acme, Pipe("Shop", "Follower"), TableName(None, "events"), TableName(None, "tracking"))
    first, second = quarantine(tenants), quarantine(tenants)
    for _ in range(2):
        first.met(ZeroDivisionError(), assignment, 1, ["Shop"])
    second.met(ZeroDivisionError(), assignment, 1, ["Shop"])
    failure = FailureStore(tenants.fleet.registry).get(assignment.key)
    assert failure is not None
    assert (failure.attempts, failure.is_quarantined) == (3, True)
    second.met(ZeroDivisionError(), assignment, 2, ["Shop"])  # of another event
    assert [each.attempts for each in FailureStore(tenants.fleet.registry).all().values()] == [1]


def test_row_that_somebody_holds_keeps_a_failure_and_nothing_else_waiting(postgres_url: str) -> None:
    settings = {"sqlalchemy_lock_timeout": 0}  # who waits, does so for ever
    with fleet(postgres_url, ["acme", "globex"], **settings) as tenants, tenants.runner(max_attempts=2) as runner:
        acme, rows = tenants["acme"], tenants.fleet.registry.rows
        known, failure_store = runner._quarantine, FailureStore(tenants.fleet.registry)  # noqa: SLF001 (what is not written is known)
        engine = sa.create_engine(tenants.settings.url)
        with engine.connect() as connection:
            connection.execute(sa.select(rows.tenants).where(rows.tenants.c.id == acme.id).with_for_update())
            acme.get(School).register("Fido", "poison")
            key = (acme.id, "Diaries")
            wait_until(lambda: (failure := known.get(key)) is not None and failure.is_quarantined, "it has stopped")
            dog_id = tenants["globex"].get(School).register("Rex", "sit")
            runner.wait("globex")
            check(tenants, "globex", {dog_id: ["Rex", "sit"]})
            known.refresh()  # as the keeper does, while nobody else may use the registry
            assert failure_store.all() == {}
        engine.dispose()
        wait_until(lambda: list(failure_store.all()) == [key], "it is written down")


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_tables_that_are_missing_are_waited_for(
    database: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a projection is new, and the runner with its code is started before its tables are made."""
    monkeypatch.setattr("tenancy.runner.quarantine._MAX_DELAY", 0.2)
    env = {"SQLALCHEMY_URL": request.getfixturevalue(database)}
    with Tenancy(system=SYSTEM, env=env) as before:
        before.create("acme").get(School).register("Fido", "sit")
    with Tenancy(system=SYSTEM, env=env) as tenants:
        tenants.project(School, DogCounters, CountersView)
        with tenants.runner(max_attempts=2) as runner:
            key = (tenants["acme"].id, "DogCounters")
            known = runner._quarantine  # noqa: SLF001 (nothing else counts so soon)
            wait_until(lambda: (failure := known.get(key)) is not None and failure.attempts > 2, "it is tried again")
            (shown,) = (each for each in tenants.followers.status() if each.follower == "DogCounters")
            assert shown.state == "retrying"
            assert shown.failure is not None
            code = "42P01" if database == "postgres_url" else "SQLITE_ERROR"
            assert shown.failure.error == f"eventsourcing.persistence.ProgrammingError {code}"
            with pytest.raises(TenancyError, match="fails before it has a notification: 1 is not what stops it"):
                tenants.followers.skip("acme", "DogCounters", 1)
            tenants.init()
            assert {each.level for each in doctor.repair(tenants.fleet)} == {"ok"}
            runner.wait("acme")
            assert tenants.projection(DogCounters, "acme").view.get_created_event_counter() == 1
            wait_until(lambda: known.get(key) is None, "that is over")
    assert "is delayed before it has a notification" in caplog.text
    assert "None" not in caplog.text


def test_what_is_tried_for_ever_is_tried_now_and_then(tenants: Tenancy) -> None:
    assignment = Assignment(
        tenants.create("acme"), Pipe("Shop", "F"), TableName(None, "events"), TableName(None, "tracking")
    )
    known = quarantine(tenants)
    for _ in range(3):
        known.met(ZeroDivisionError(), assignment, None, ["Shop"])
    many = replace(known._known[assignment.key], attempts=5000)  # noqa: SLF001 (it would take a day)
    known._known[assignment.key] = many  # noqa: SLF001 (as above)
    known.met(ZeroDivisionError(), assignment, None, ["Shop"])
    failure = known.get(assignment.key)
    assert failure is not None
    assert (failure.attempts, failure.is_quarantined) == (5001, False)


def test_worker_writes_down_what_it_has_met_alone(tenants: Tenancy) -> None:
    """What others could not write down may have to wait for longer."""
    first, second = (
        Assignment(
            tenants.create(slug), Pipe("Shop", "Follower"), TableName(None, "events"), TableName(None, "tracking")
        )
        for slug in ("acme", "globex")
    )
    known, failure_store = quarantine(tenants), FailureStore(tenants.fleet.registry)
    known.met(ZeroDivisionError(), first, 1, ["Shop"])
    known._unwritten.add(first.key)  # noqa: SLF001 (as if it could not be written)
    failure_store.clear(first.key)
    known.met(ZeroDivisionError(), second, 1, ["Shop"])
    assert list(failure_store.all()) == [second.key]
    known.refresh()
    assert failure_store.all().keys() == {first.key, second.key}


def test_failure_of_a_turn_that_is_being_taken_while_its_tenant_is_let_go(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the tenant comes back after it was told elsewhere to try again, it may have turns."""
    with fleet(sqlite_url, ["acme"]) as tenants:
        runner = tenants.runner(max_attempts=1)
        coordinator, assignments, ready = runner._coordinator, runner._assignments, runner._ready  # noqa: SLF001 (without the threads)
        coordinator.start()
        assignment = next(assignment for assignment in assignments.all() if assignment.pipe.follower == "Diaries")

        def fail(*_: object) -> None:
            runner._quarantine.met(ZeroDivisionError(), assignment, 1, ["School"])  # noqa: SLF001 (as a worker does)

        monkeypatch.setattr(coordinator._applications, "forget", fail)  # noqa: SLF001 (in the middle of letting it go)
        coordinator._follow(assignments.hold(()))  # noqa: SLF001 (as when another process gets the leases)
        assert [failure.follower for failure in tenants.followers.retry("acme")] == ["Diaries"]
        coordinator._follow(assignments.hold(range(BUCKETS)))  # noqa: SLF001 (as above)
        before = len(ready)
        ready.add(assignment.key, ["School"])
        assert len(ready) == before + 1
        runner.stop()
