"""Subscriptions after failures, and what they leave behind."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import Notification, OperationalError, ProgrammingError
from sqlalchemy import text

from eventsourcing_sqlalchemy import subscriptions
from eventsourcing_sqlalchemy.notifications import wakeups
from eventsourcing_sqlalchemy.notifications.listener import ListenThread
from eventsourcing_sqlalchemy.notifications.wakeups import Waiter, Wakeups
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder, SQLAlchemyProcessRecorder
from eventsourcing_sqlalchemy.subscriptions import SQLAlchemySubscription
from tests.faults.conftest import DRIVERS
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events
from tests.support.deadlines import DEADLINE_SECONDS, wait_until

LISTENING_DRIVERS = ("psycopg2", "psycopg")

# A subscription that waits this long was not woken.
POLL_SECONDS = 60.0
# Far longer than a wake-up takes, and shorter than that.
WOKEN_SECONDS = DEADLINE_SECONDS


@pytest.fixture
def without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make subscriptions rely on wake-ups alone."""
    monkeypatch.setattr(wakeups, "POLL_WHEN_LISTENING", POLL_SECONDS)
    monkeypatch.setattr(wakeups, "POLL_WHEN_NOT_LISTENING", POLL_SECONDS)


@pytest.fixture
def recorder(applications: Applications, place: str) -> SQLAlchemyProcessRecorder:
    """The recorder with the subscription."""
    return applications.recorder("Shop", place)


@pytest.fixture
def elsewhere(applications: Applications, recorder: SQLAlchemyProcessRecorder) -> SQLAlchemyProcessRecorder:
    """A recorder of the same events that shares no memory with it, as in another process."""
    return applications.elsewhere(recorder)


def listener_threads() -> list[ListenThread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, ListenThread)]


def listeners(database: Database) -> int:
    """Return the number of server processes that appear to listen."""
    return database.scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )


@contextmanager
def received(subscription: Any) -> Iterator[list[Notification]]:
    """Iterate over a subscription in a thread, until the block ends."""
    notifications: list[Notification] = []

    def receive() -> None:
        for notification in subscription:
            notifications.append(notification)  # noqa: PERF402 (each must be visible on arrival)

    with ThreadPoolExecutor(1) as threads:
        receiving = threads.submit(receive)
        try:
            yield notifications
        finally:
            subscription.stop()
            receiving.result(WOKEN_SECONDS)


def append(recorder: SQLAlchemyProcessRecorder, topic: str) -> int:
    (number,) = recorder.insert_events(stored_events(topic=topic)) or ()
    return number


# -- the listener loses its connection --


@pytest.fixture
def reconnecting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set while the listener may connect, initially set."""
    may_connect = threading.Event()
    may_connect.set()
    connect = ListenThread._connect  # noqa: SLF001 (no other hook)

    def wait_and_connect(thread: ListenThread) -> object:
        assert may_connect.wait(WOKEN_SECONDS)
        return connect(thread)

    monkeypatch.setattr(ListenThread, "_connect", wait_and_connect)
    return may_connect


def pages_around_a_lost_listener(
    database: Database,
    recorder: SQLAlchemyProcessRecorder,
    elsewhere: SQLAlchemyProcessRecorder,
    reconnecting: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> list[list[str]]:
    """Append an event while the listener is disconnected, and one after it is back; return the topics of each non-empty
    page that the subscription read.
    """
    pages: list[list[str]] = []
    select = SQLAlchemyApplicationRecorder.select_notifications

    def select_and_note(*args: Any, **kwargs: Any) -> list[Notification]:
        page = select(*args, **kwargs)
        if page:
            pages.append([notification.topic for notification in page])
        return page

    monkeypatch.setattr(SQLAlchemyApplicationRecorder, "select_notifications", select_and_note)
    with received(recorder.subscribe()) as notifications:
        append(elsewhere, "before")
        wait_until(lambda: len(notifications) == 1, "the first event is received", WOKEN_SECONDS)
        reconnecting.clear()
        assert database.terminate("query LIKE 'LISTEN%'") == 1
        append(elsewhere, "meanwhile")
        reconnecting.set()
        wait_until(lambda: listeners(database) == 1, "the listener is back")
        wait_until(lambda: any(thread.is_live for thread in listener_threads()), "it listens")
        if Wakeups.wake_all.__module__ == wakeups.__name__:
            wait_until(lambda: len(notifications) == 2, "the event from in between is received", WOKEN_SECONDS)
        append(elsewhere, "after")
        wait_until(lambda: len(notifications) == 3, "the last event is received", WOKEN_SECONDS)
    return pages


@pytest.mark.usefixtures("without_polling")
@pytest.mark.parametrize("driver", LISTENING_DRIVERS, indirect=True)
def test_events_written_while_the_listener_was_disconnected_arrive(
    database: Database,
    recorder: SQLAlchemyProcessRecorder,
    elsewhere: SQLAlchemyProcessRecorder,
    reconnecting: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = pages_around_a_lost_listener(database, recorder, elsewhere, reconnecting, monkeypatch)
    assert pages == [["before"], ["meanwhile"], ["after"]]


@pytest.mark.usefixtures("without_polling")
@pytest.mark.parametrize("driver", LISTENING_DRIVERS, indirect=True)
def test_without_a_read_after_reconnecting_they_would_wait_for_the_next_one(
    database: Database,
    recorder: SQLAlchemyProcessRecorder,
    elsewhere: SQLAlchemyProcessRecorder,
    reconnecting: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Wakeups, "wake_all", lambda _: None)
    pages = pages_around_a_lost_listener(database, recorder, elsewhere, reconnecting, monkeypatch)
    assert pages == [["before"], ["meanwhile", "after"]]


@pytest.mark.parametrize("driver", DRIVERS, indirect=True)
def test_subscription_continues_when_all_connections_are_terminated(
    database: Database, recorder: SQLAlchemyProcessRecorder, elsewhere: SQLAlchemyProcessRecorder
) -> None:
    with received(recorder.subscribe()) as notifications:
        numbers = []
        for _ in range(5):
            numbers.append(append(elsewhere, "event"))
            database.terminate("query NOT LIKE '%pg_stat_activity%'")
        wait_until(lambda: len(notifications) == 5, "all events are received", WOKEN_SECONDS)
    assert [notification.id for notification in notifications] == numbers


def test_permanent_error_reaches_the_subscriber(
    database: Database, recorder: SQLAlchemyProcessRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorder.subscribe() as subscription:
        with database.engine.connect() as connection:
            connection.execute(text(f"DROP TABLE {recorder.events_table}"))
        with pytest.raises(ProgrammingError, match="does not exist"):
            next(subscription)

    def unreachable(*_: Any, **__: Any) -> list[Notification]:
        raise OperationalError("no answer")

    monkeypatch.setattr(SQLAlchemyApplicationRecorder, "select_notifications", unreachable)
    monkeypatch.setattr(wakeups, "POLL_WHEN_LISTENING", 0.01)
    monkeypatch.setattr(wakeups, "POLL_WHEN_NOT_LISTENING", 0.01)
    monkeypatch.setattr(subscriptions, "_PATIENCE", 0.1)
    begin = time.monotonic()
    with recorder.subscribe() as subscription, pytest.raises(OperationalError, match="no answer"):
        next(subscription)
    assert time.monotonic() - begin > 0.1


# -- no wake-up is lost --

WRITER = """
import sys
from tests.support.applications import Applications, stored_events
with Applications(sys.argv[1]) as applications:
    recorder = applications.recorder("Shop", sys.argv[2])
    for _ in sys.stdin:
        print(recorder.insert_events(stored_events())[0], flush=True)
"""


@contextmanager
def writing_thread(recorder: SQLAlchemyProcessRecorder) -> Iterator[tuple[Callable[[], object], Callable[[], int]]]:
    """Yield a function that makes another thread append an event shortly, and one that returns its id."""
    chance = random.Random(7)  # noqa: S311 (chance for a test)
    numbers: list[Any] = []

    def write(delay: float) -> int:
        time.sleep(delay)  # Not to wait for a condition, but to reach the subscription at a different moment each time.
        return append(recorder, "event")

    with ThreadPoolExecutor(1) as threads:
        yield (
            lambda: numbers.append(threads.submit(write, chance.choice([0.0, chance.uniform(0, 0.01)]))),
            lambda: int(numbers.pop().result(WOKEN_SECONDS)),
        )


@contextmanager
def writing_process(url: str, place: str) -> Iterator[tuple[Callable[[], object], Callable[[], int]]]:
    """Yield a function that makes another process append an event, and one that returns its id."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, url, place],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        yield lambda: stdin.write("\n"), lambda: int(stdout.readline())
        stdin.close()


@pytest.mark.usefixtures("without_polling")
@pytest.mark.parametrize("driver", LISTENING_DRIVERS, indirect=True)
@pytest.mark.parametrize("writer", ["thread", "process"])
def test_no_wakeup_is_lost(  # noqa: PLR0917 (fixtures)
    recorder: SQLAlchemyProcessRecorder,
    elsewhere: SQLAlchemyProcessRecorder,
    applications: Applications,
    place: str,
    writer: str,
    repeat: Callable[[int], range],
) -> None:
    writing = writing_thread(elsewhere) if writer == "thread" else writing_process(applications.url, place)
    position: int | None = None
    with writing as (write, result):
        for _ in repeat(50):
            write()
            begin = time.monotonic()
            with recorder.subscribe(gt=position) as subscription:
                notification = next(subscription)
            assert time.monotonic() - begin < WOKEN_SECONDS
            position = result()
            assert notification.id == position


class ReadsFirst(SQLAlchemySubscription):
    """The wrong order: it reads before it listens."""

    def __next__(self) -> Notification:
        if self._waiter is None:
            self._read()
            self._waiter = self._recorder.wait_for_events()
            self._waiter.clear()
            if not self._notifications and not self._has_been_stopped:
                self._waiter.sleep()
        return super().__next__()


@pytest.mark.usefixtures("without_polling")
@pytest.mark.parametrize("driver", LISTENING_DRIVERS, indirect=True)
@pytest.mark.parametrize("subscription_class", [SQLAlchemySubscription, ReadsFirst])
@pytest.mark.parametrize("moment", ["before it listens", "after it has read"])
def test_event_at_any_moment_wakes_the_subscription(
    recorder: SQLAlchemyProcessRecorder,
    elsewhere: SQLAlchemyProcessRecorder,
    subscription_class: type[SQLAlchemySubscription],
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[int] = []

    def write_once() -> None:
        if not written:
            written.append(append(elsewhere, "event"))
            elsewhere.datastore.close()  # returns when other processes have been notified

    if moment == "before it listens":
        wait_for = recorder.datastore.wait_for

        def write_and_wait_for(key: int) -> Waiter:
            write_once()
            return wait_for(key)

        monkeypatch.setattr(recorder.datastore, "wait_for", write_and_wait_for)
    else:
        select = recorder.select_notifications

        def select_and_write(*args: Any, **kwargs: Any) -> Sequence[Notification]:
            page = select(*args, **kwargs)
            write_once()
            return page

        monkeypatch.setattr(recorder, "select_notifications", select_and_write)

    subscription = subscription_class(recorder)
    with received(subscription) as notifications:
        if subscription_class is ReadsFirst:
            wait_until(lambda: bool(written), "the event is written")
            with pytest.raises(AssertionError, match="not in time"):
                wait_until(lambda: bool(notifications), "it is received", 0.3)
        else:
            wait_until(lambda: [n.id for n in notifications] == written != [], "it is received", WOKEN_SECONDS)


# -- the end --


@pytest.fixture(params=[*DRIVERS, "sqlite"])
def any_recorder(request: pytest.FixtureRequest, place: str) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder on each database."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        database: Database = request.getfixturevalue("database")
        url = database.url(request.param)
    with Applications(url) as applications:
        yield applications.recorder("Shop", place)


def assert_nothing_is_left(recorder: SQLAlchemyProcessRecorder, request: pytest.FixtureRequest) -> None:
    """Expect no thread and no connection of a subscription."""
    wait_until(lambda: not listener_threads(), "the listener thread ends")
    wakeups = recorder.datastore.shared.wakeups
    wait_until(lambda: not wakeups._waiters, "no subscription waits")  # noqa: SLF001 (internal)
    pool: Any = recorder.datastore.engine.pool
    wait_until(lambda: pool.checkedout() == 0, "all connections are in the pool")
    if "database" in request.fixturenames:
        database: Database = request.getfixturevalue("database")
        wait_until(lambda: listeners(database) == 0, "the server process that listened ends")


@pytest.mark.usefixtures("without_polling")
def test_waiting_subscription_stops_immediately_and_leaves_nothing(
    any_recorder: SQLAlchemyProcessRecorder, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(any_recorder, "event")
    iteration_ended = threading.Event()
    subscription: Any = any_recorder.subscribe()

    def iterate() -> None:
        with subscription:
            for _ in subscription:
                pass
        iteration_ended.set()

    sleeps = threading.Event()
    sleep = Waiter.sleep

    def note_and_sleep(waiter: Waiter) -> None:
        sleeps.set()
        sleep(waiter)

    monkeypatch.setattr(Waiter, "sleep", note_and_sleep)
    with ThreadPoolExecutor(1) as threads:
        iterating = threads.submit(iterate)
        assert sleeps.wait(WOKEN_SECONDS)
        subscription.stop()
        # It takes a tenth of that on an idle machine; polling would take a minute.
        assert iteration_ended.wait(1.0)
        iterating.result(WOKEN_SECONDS)
    assert_nothing_is_left(any_recorder, request)
    assert list(subscription) == []


@pytest.mark.usefixtures("without_polling")
def test_subscription_that_is_never_stopped_leaves_nothing(
    any_recorder: SQLAlchemyProcessRecorder, request: pytest.FixtureRequest
) -> None:
    append(any_recorder, "event")
    subscription: Any = any_recorder.subscribe()
    assert next(subscription).topic == "event"
    subscription.itself = subscription  # Only the garbage collector finds it.
    del subscription
    gc.collect()
    # Without a listener, the next subscription removes it.
    any_recorder.datastore.shared.wakeups.sweep()
    assert_nothing_is_left(any_recorder, request)


def test_subscription_may_be_collected_while_its_lock_is_held(any_recorder: SQLAlchemyProcessRecorder) -> None:
    # It must neither hang nor change data that the lock protects.
    append(any_recorder, "event")
    subscription: Any = any_recorder.subscribe()
    next(subscription)
    subscription.itself = subscription
    del subscription
    hub = any_recorder.datastore.shared.wakeups
    found: list[int] = []
    is_collected = threading.Event()

    def collect() -> None:
        with hub._lock:  # noqa: SLF001 (as the collector may run at any point)
            found.append(len(hub._waiters))  # noqa: SLF001 (internal)
            gc.collect()
            found.append(len(hub._waiters))  # noqa: SLF001 (as above)
        is_collected.set()

    # A daemon, so that a hang does not block the test process.
    threading.Thread(target=collect, daemon=True).start()
    assert is_collected.wait(WOKEN_SECONDS)
    assert found == [1, 1]
    hub.sweep()
    # The listener or watcher thread may sweep at the same time.
    wait_until(lambda: not hub._waiters, "it is removed")  # noqa: SLF001 (as above)


@pytest.mark.usefixtures("without_polling")
def test_subscription_that_was_never_iterated_leaves_nothing(
    any_recorder: SQLAlchemyProcessRecorder, request: pytest.FixtureRequest
) -> None:
    any_recorder.subscribe().stop()
    with any_recorder.subscribe():
        pass
    assert_nothing_is_left(any_recorder, request)
