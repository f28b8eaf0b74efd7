"""Outages, purges and lost wake-ups: no event is lost or processed twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from eventsourcing_sqlalchemy.notifications.wakeups import Wakeups
from tenancy.runner.leases import BUCKETS, owners
from tenancy.runner.runner import Runner
from tenancy.testing.postgresql import PostgresServer
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import Diaries, Summaries
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.fleets import check, fleet


def caught_up(runner: Runner, slug: str) -> bool:
    return all(each.lag == 0 for each in runner.status() if each.tenant == slug)


def test_database_is_restarted(own_postgres_server: PostgresServer) -> None:
    expected: dict[UUID, list[str]] = {}
    with fleet(own_postgres_server.url(), ["acme"]) as tenants, tenants.runner(max_attempts=1) as runner:
        school = tenants["acme"].get(TrainingSchool)
        for _ in range(10):
            expected[school.register("Fido", *["sit"] * 5)] = ["Fido", *["sit"] * 5]
        own_postgres_server.stop()
        own_postgres_server.start()
        expected[school.register("Rex", "sit")] = ["Rex", "sit"]
        runner.wait("acme", timeout=60)
        check(tenants, "acme", expected)
        # The restart moves the sequences ahead, and an outage does not count as a failure.
        wait_until(
            lambda: {(each.lag, each.state) for each in runner.status()} == {(0, "current")}, "the runner is healthy"
        )


def test_registry_is_unreachable_for_longer_than_the_leases(
    own_postgres_server: PostgresServer, sqlite_url: str, repeat: Callable[[int], range]
) -> None:
    """The runner pauses when its leases expire, resumes afterwards, and processes the events recorded meanwhile.

    With TEST_REPEAT above 1, that takes a minute.
    """
    settings = {"tenancy_control_url": own_postgres_server.url(), "tenancy_max_outage": 600}
    with fleet(sqlite_url, ["acme"], **settings) as tenants, tenants.runner(lease_seconds=1.0) as runner:
        school = tenants["acme"].get(TrainingSchool)
        expected = {school.register("Fido", "sit"): ["Fido", "sit"]}
        runner.wait("acme", DEADLINE_SECONDS)
        own_postgres_server.stop()
        stopped_at = time.monotonic()
        wait_until(lambda: not runner._leases.are_valid(), "the leases have expired")  # noqa: SLF001 (not visible otherwise)
        expected[school.register("Bello", "sit")] = ["Bello", "sit"]
        if len(repeat(1)) > 1:
            time.sleep(max(0.0, stopped_at + 60 - time.monotonic()))
        assert tenants["acme"].get(Summaries).count() == 1  # another process could hold the leases by now
        own_postgres_server.start()
        wait_until(lambda: len(owners(tenants.fleet.registry)) == BUCKETS, "they are held again")
        expected[school.register("Rex", "sit")] = ["Rex", "sit"]
        runner.wait("acme", timeout=60)
        check(tenants, "acme", expected)


def test_tenant_is_purged_during_a_slice(postgres_url: str) -> None:
    with fleet(postgres_url, ["acme", "globex"]) as tenants, tenants.runner() as runner:
        tenants["acme"].get(TrainingSchool).register("Fido", *["sit"] * 5000)
        wait_until(lambda: position(runner, "acme") > 20, "it is running")
        certificate = tenants.purge("acme")
        assert set(certificate.left.values()) == {0}
        dog_id = tenants["globex"].get(TrainingSchool).register("Rex", "sit")
        runner.wait("globex", DEADLINE_SECONDS)
        check(tenants, "globex", {dog_id: ["Rex", "sit"]})
        registry: Any = tenants.fleet.registry
        assert tenants.followers._failure_store.all() == {}  # noqa: SLF001 (as above)
        assert registry.remaining_rows(certificate.tenant_id) == 0


def position(runner: Runner, slug: str) -> int:
    return min(each.position for each in runner.status() if (each.tenant, each.follower) == (slug, "Diaries"))


def test_sweep_finds_events_without_a_wake_up(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, repeat: Callable[[int], range]
) -> None:
    with fleet(postgres_url, ["acme", "globex"]) as tenants, tenants.runner() as runner:
        monkeypatch.setattr(Wakeups, "committed", lambda *_: None)
        expected: dict[UUID, list[str]] = {}
        school = tenants["acme"].get(TrainingSchool)
        for number in repeat(2):
            expected[school.register(f"Dog {number}", "sit")] = [f"Dog {number}", "sit"]
            wait_until(lambda: caught_up(runner, "acme"), "the sweep finds it")
        check(tenants, "acme", expected)


def test_event_committed_long_after_its_id_was_assigned(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep keeps a gap pending while its transaction is open, and finds the event without a wake-up."""
    with fleet(postgres_url, ["acme"]) as tenants, tenants.runner() as runner:
        school = tenants["acme"].get(TrainingSchool)
        recorder: Any = school.recorder
        monkeypatch.setattr(Wakeups, "committed", lambda *_: None)
        assignment = next(each for each in runner._assignments.all() if each.pipe.follower == "Diaries")  # noqa: SLF001 (the gap is internal)
        with recorder.transaction():
            dog_id = school.register("Fido", "sit")
            wait_until(
                lambda: assignment.pending_gap is not None and assignment.pending_gap.mark is not None,
                "the gap is pending",
            )
            mark = assignment.pending_gap
            sweeps = threading.Event()
            run = runner._coordinator._sweep.run  # noqa: SLF001 (as above)
            seen = []

            def count() -> None:
                run()
                seen.append(assignment.pending_gap)
                if len(seen) == 2:
                    sweeps.set()

            monkeypatch.setattr(runner._coordinator._sweep, "run", count)  # noqa: SLF001 (as above)
            assert sweeps.wait(20)
            assert seen == [mark, mark]  # however often it sweeps
            assert (assignment.settled_up_to, mark.is_final if mark else None) == (0, False)
        wait_until(lambda: caught_up(runner, "acme") and assignment.position == 2, "it is found")
        check(tenants, "acme", {dog_id: ["Fido", "sit"]})


def test_two_runners_with_the_same_tenant(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a pause of one process: the loser of the race for a notification resumes behind the winner."""
    monkeypatch.setattr("tenancy.runner.leases.Leases.are_valid", lambda _: True)
    monkeypatch.setattr("tenancy.runner.leases.Leases._release", lambda *_: None)
    with fleet(postgres_url, ["acme"]) as tenants, fleet(postgres_url) as others:
        with tenants.runner(max_attempts=1) as one, others.runner(max_attempts=1) as other:
            for runner in (one, other):
                monkeypatch.setattr(runner._leases, "tick", lambda _: None)  # noqa: SLF001 (neither releases a bucket)
                runner._coordinator._apply_reassignment(runner._assignments.hold(range(BUCKETS)))  # noqa: SLF001 (as above)
            expected = {}
            for number in range(20):
                expected[tenants["acme"].get(TrainingSchool).register(f"Dog {number}", "sit")] = [
                    f"Dog {number}",
                    "sit",
                ]
            one.wait("acme", timeout=60)
            other.wait("acme", timeout=60)
        check(tenants, "acme", expected)
        assert tenants.followers._failure_store.all() == {}  # noqa: SLF001 (losing a race does not count as a failure)


def test_stop_waits_for_the_current_event(postgres_url: str) -> None:
    with fleet(postgres_url, ["acme"]) as tenants:
        runner = tenants.runner(workers=1)
        runner.start()
        dog_id = tenants["acme"].get(TrainingSchool).register("Fido", *["slow 0.3"] * 200)
        wait_until(lambda: position(runner, "acme") >= 1, "it is running")
        assert runner.stop(timeout=60)
        done = position(runner, "acme")
        assert tenants["acme"].get(Diaries).entries(dog_id) == ["Fido", *["slow 0.3"] * (done - 1)]
        assert done < 201
        assert not owners(tenants.fleet.registry)
