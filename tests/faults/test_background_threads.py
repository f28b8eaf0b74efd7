"""Background threads survive unexpected errors, and report them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from eventsourcing_sqlalchemy.notifications import wakeups
from eventsourcing_sqlalchemy.notifications.wakeups import CHANNEL, Wakeups
from tenancy.runner.coordinator import Coordinator
from tenancy.runner.ready_queue import ReadyQueue
from tenancy.runner.sweep import Sweep
from tenancy.telemetry.metrics import measure
from tests.samples.training_school.application import TrainingSchool
from tests.support.applications import Applications, stored_events
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.fleets import check, fleet
from tests.support.followers import Follower


class Failing:
    """Raises in place of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.is_on = threading.Event()
        self.has_failed = threading.Event()
        self.is_on.set()

    def once(self) -> Callable[..., Any]:
        """Return a function that raises on its first call."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.has_failed.is_set():
                self._fail()
            return self.function(*args, **kwargs)

        return call

    def while_on(self) -> Callable[..., Any]:
        """Return a function that raises while the event is set."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.is_on.is_set():
                self._fail()
            return self.function(*args, **kwargs)

        return call

    def _fail(self) -> None:
        self.has_failed.set()
        msg = "Invalid argument"
        raise OSError(msg)  # as a pause raises when the clock is set


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_notifier_survives_errors(driver: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    server, database = request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_database")
    arguments = sa.make_url(server.url(database)).translate_connect_args(username="user", database="dbname")
    listening = psycopg2.connect(**arguments)
    listening.autocommit = True
    listening.cursor().execute(f"LISTEN {CHANNEL}")

    def is_notified() -> bool:
        listening.poll()
        return bool(listening.notifies)

    failing = Failing(wakeups.payload)
    monkeypatch.setattr(wakeups, "payload", failing.once())
    with Applications(server.url(database, driver)) as applications:
        recorder = applications.recorder()
        recorder.insert_events(stored_events())
        assert failing.has_failed.wait(20)
        recorder.insert_events(stored_events())
        wait_until(is_notified, "other processes are notified")
    listening.close()


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_listener_thread_survives_errors(
    database: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "POLL_WHEN_LISTENING", 60.0)  # wake-ups only, no polling
    failing = Failing(Wakeups.sweep)
    fail_once = failing.once()

    def sweep(self: Wakeups) -> None:
        is_in_background = threading.current_thread().name.startswith("eventsourcing-")
        (fail_once if is_in_background else failing.function)(self)

    monkeypatch.setattr(Wakeups, "sweep", sweep)
    with Applications(request.getfixturevalue(database)) as applications:
        recorder = applications.recorder()
        other = applications.elsewhere(recorder)
        with Follower(recorder) as follower:
            assert failing.has_failed.wait(20)
            wait_until(lambda: recorder.datastore.shared.wakeups.receives_remote, "it receives wake-ups again")
            for number in range(3):
                other.insert_events(stored_events(topic=str(number)))
                follower.wait_for(*map(str, range(number + 1)))


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


def test_worker_continues_after_an_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(ReadyQueue.take)
    monkeypatch.setattr(ReadyQueue, "take", failing.once())
    with fleet(url, ["acme"]) as tenants, tenants.runner(workers=1) as runner:
        assert failing.has_failed.wait(20)
        dog_id = tenants["acme"].get(TrainingSchool).register("Fido", "sit")
        runner.wait("acme", DEADLINE_SECONDS)
        check(tenants, "acme", {dog_id: ["Fido", "sit"]})
        wait_until(lambda: set(runner.health().values()) == {None}, "all is well")


@pytest.mark.parametrize(
    ("cls", "name", "activity"),
    [(Coordinator, "_sweep_interval", "coordinator"), (Sweep, "run", "sweep")],
)
def test_coordinator_continues_and_reports_failures(
    url: str,
    *,
    cls: type[Any],
    name: str,
    activity: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = CollectorRegistry()

    def gauge() -> float | None:
        return registry.get_sample_value("tenancy_runner_failing", {"activity": activity})

    def shown() -> set[str | None]:
        return {each.owner_failing for each in tenants.followers.status()}

    monkeypatch.setattr("tenancy.runner.coordinator.SWEEP_INTERVAL", 0.05)
    failing = Failing(getattr(cls, name))
    monkeypatch.setattr(cls, name, failing.while_on())
    with (
        fleet(url, ["acme"]) as tenants,
        tenants.runner(lease_seconds=1.0) as runner,
        closing(measure(tenants, runner=runner, registry=registry)),
    ):
        wait_until(lambda: runner.health()[activity] == "OSError", "this process reports it")
        wait_until(lambda: shown() == {f"{activity} (OSError)"}, "other processes see it")
        wait_until(lambda: gauge() == 1, "the metrics show it")
        failing.is_on.clear()
        wait_until(lambda: set(runner.health().values()) == {None}, "it works again")
        wait_until(lambda: shown() == {None}, "other processes see the recovery")
        wait_until(lambda: gauge() == 0, "the metrics show the recovery")
        tenants.create("new")
        dog_id = tenants["new"].get(TrainingSchool).register("Fido", "sit")
        runner.wait("new", DEADLINE_SECONDS)
        check(tenants, "new", {dog_id: ["Fido", "sit"]})
    logged = [
        record for record in caplog.records if record.levelno >= logging.WARNING and "OSError" in record.getMessage()
    ]
    assert len(logged) == 1
