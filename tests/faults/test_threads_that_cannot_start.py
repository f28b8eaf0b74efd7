"""Wake-ups without threads, or with an unexpected error: events are recorded, and subscriptions continue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa

from eventsourcing_sqlalchemy.notifications.wakeups import CHANNEL
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import wait_until
from tests.support.followers import Follower

NOTIFIER, LISTENER = "eventsourcing-notifier", "eventsourcing-listener"


@pytest.fixture
def is_notified(database: Database) -> Iterator[Callable[[], bool]]:
    """Return a function that checks for new wake-ups, as another process receives them."""
    arguments = sa.make_url(database.url()).translate_connect_args(username="user", database="dbname")
    connection = psycopg2.connect(**arguments)
    connection.autocommit = True
    connection.cursor().execute(f"LISTEN {CHANNEL}")

    def look() -> bool:
        connection.poll()
        on_commit = bool(connection.notifies)
        connection.notifies.clear()
        return on_commit

    yield look
    connection.close()


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Return a function that selects the threads that cannot start."""
    start = threading.Thread.start
    refused: list[str] = []

    def refuse(self: threading.Thread) -> None:
        if self.name in refused:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        start(self)

    def choose(*names: str) -> None:
        refused[:] = names

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield choose


def test_events_are_recorded_although_no_process_can_be_notified(
    database: Database, place: str, no_thread: Callable[..., None], is_notified: Callable[[], bool]
) -> None:
    with Applications(database.url()) as apps:
        recorder = apps.recorder(place=place)
        no_thread(NOTIFIER)
        assert recorder.insert_events(stored_events(2, topic="untold")) == [1, 2]
        with recorder.transaction():
            recorder.insert_events(stored_events(topic="untold"))
        assert topics(recorder) == ["untold"] * 3
        assert not is_notified()
        no_thread()
        recorder.insert_events(stored_events(topic="told"))
        wait_until(is_notified, "other processes are notified")


def test_subscription_without_a_listening_thread_polls(
    database: Database, place: str, no_thread: Callable[..., None]
) -> None:
    with Applications(database.url()) as apps:
        recorder = apps.recorder(place=place)
        no_thread(LISTENER)
        with Follower(recorder) as follower:
            apps.elsewhere(recorder).insert_events(stored_events(topic="elsewhere"))
            follower.wait_for("elsewhere")
        no_thread()
        with Follower(recorder) as follower:
            recorder.insert_events(stored_events(topic="here"))
            follower.wait_for("here")


def test_error_of_the_driver_does_not_end_the_notifications(
    database: Database, place: str, monkeypatch: pytest.MonkeyPatch, is_notified: Callable[[], bool]
) -> None:
    with Applications(database.url()) as apps:
        recorder = apps.recorder(place=place)
        shared = recorder.datastore.shared
        run = shared.run
        failed = threading.Event()

        def fail(work: Any, caller: Any = None) -> Any:
            if threading.current_thread().name == NOTIFIER:
                failed.set()
                msg = "permission denied for function pg_notify"
                raise psycopg2.errors.InsufficientPrivilege(msg)
            return run(work, caller)

        with monkeypatch.context() as patch:
            patch.setattr(shared, "run", fail)
            recorder.insert_events(stored_events(topic="untold"))
            assert failed.wait(10)
        assert not is_notified()
        recorder.insert_events(stored_events(topic="told"))
        wait_until(is_notified, "other processes are notified")
