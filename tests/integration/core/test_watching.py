"""The file watcher: commits of other processes to a SQLite file wake subscriptions without polling."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from eventsourcing_sqlalchemy.dialects.sqlite.dialect import SQLiteDialect
from eventsourcing_sqlalchemy.notifications import file_watcher as watching
from eventsourcing_sqlalchemy.notifications import wakeups
from eventsourcing_sqlalchemy.notifications.wakeups import Waiter
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import wait_until
from tests.support.followers import Follower
from tests.support.forked import forks, in_child
from tests.support.other_process import OtherProcess, insert

WATCHER = "eventsourcing-watcher"
POLL_SECONDS = 60.0  # longer than any test waits


@pytest.fixture
def without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make subscriptions rely on wake-ups alone."""
    monkeypatch.setattr(wakeups, "POLL_WHEN_LISTENING", POLL_SECONDS)
    monkeypatch.setattr(wakeups, "POLL_WHEN_NOT_LISTENING", POLL_SECONDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def apps(path: Path) -> Iterator[Applications]:
    with Applications(f"sqlite:///{path}") as apps:
        yield apps


@pytest.fixture
def recorder(apps: Applications) -> SQLAlchemyProcessRecorder:
    return apps.recorder("Shop")


@pytest.fixture
def other(path: Path, recorder: SQLAlchemyProcessRecorder) -> Iterator[OtherProcess]:  # noqa: ARG001 (creates the tables)
    with closing(OtherProcess(path)) as other:
        yield other


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == WATCHER]


def no_watcher() -> bool:
    return not watchers()


def wakes(waiter: Waiter) -> None:
    """Expect the block to wake a sleeping subscription."""
    wait_until(waiter._event.is_set, "the subscription is woken")  # noqa: SLF001 (before it polls)


# -- wake-ups --


@pytest.mark.usefixtures("without_polling")
def test_commit_of_another_process_wakes_a_subscription(
    recorder: SQLAlchemyProcessRecorder, other: OtherProcess
) -> None:
    with Follower(recorder) as follower:
        for number in range(10):
            other.insert(f"{number}")
            follower.wait_for(*map(str, range(number + 1)))


@pytest.mark.usefixtures("without_polling")
def test_without_the_watcher_it_would_not_wake(
    recorder: SQLAlchemyProcessRecorder, other: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant: a watcher that sees no changes."""
    looked = threading.Event()

    monkeypatch.setattr(SQLiteDialect, "watch", lambda *_: looked.set)
    with Follower(recorder) as follower:
        other.insert("unheard")
        looked.clear()
        for _ in range(20):
            assert looked.wait(10)
            looked.clear()
        assert follower.topics == []
        assert follower.reads == 1


@pytest.mark.usefixtures("without_polling")
def test_commit_of_this_process_wakes_subscriptions(apps: Applications, recorder: SQLAlchemyProcessRecorder) -> None:
    with Follower(recorder) as follower:
        recorder.insert_events(stored_events(topic="call"))
        with recorder.transaction():
            recorder.insert_events(stored_events(topic="transaction"))
        # On an unrelated engine.
        apps.elsewhere(recorder).insert_events(stored_events(topic="elsewhere"))
        # Without the package.
        with recorder.datastore.get_connection() as connection:
            connection.exec_driver_sql(insert("raw"))
            connection.commit()
        follower.wait_for("call", "transaction", "elsewhere", "raw")


@pytest.mark.usefixtures("without_polling")
def test_rollback_of_another_process_yields_no_events(recorder: SQLAlchemyProcessRecorder, other: OtherProcess) -> None:
    with Follower(recorder) as follower:
        for number in range(3):
            # More than the cache holds, so that a part is written to the log.
            other.run("PRAGMA cache_size = 1", "BEGIN IMMEDIATE", *[insert("lost")] * 200, "ROLLBACK")
            other.insert(f"{number}")
            follower.wait_for(*map(str, range(number + 1)))


@pytest.mark.usefixtures("without_polling")
def test_commit_in_another_journal_mode_wakes_a_subscription(path: Path) -> None:
    """An administrator changed the mode, and a reading process keeps it."""
    with Applications(f"sqlite:///{path}") as apps:
        apps.recorder("Shop")
    with closing(sqlite3.connect(path, isolation_level=None)) as administrator:
        assert administrator.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
        administrator.execute("BEGIN")
        administrator.execute("SELECT * FROM shop_events").fetchall()
        with (
            Applications(f"sqlite:///{path}", pool_size=1, max_overflow=0, lock_timeout=1) as apps,
            closing(OtherProcess(path)) as other,
        ):
            recorder = apps.recorder("Shop")
            with Follower(recorder) as follower:
                administrator.execute("ROLLBACK")
                for number in range(5):
                    other.insert(f"{number}")
                    follower.wait_for(*map(str, range(number + 1)))
                assert list(recorder.datastore.fetch("PRAGMA journal_mode")[0]) == ["delete"]


@pytest.mark.usefixtures("without_polling")
def test_commit_that_is_noticed_before_it_can_be_read_arrives(
    recorder: SQLAlchemyProcessRecorder, other: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite writes the log, waits for the disk, and only then makes the commit visible to readers."""
    read = recorder.select_notifications
    noticed = threading.Event()

    def read_too_early(*args: Any, **kwargs: Any) -> Any:
        notifications = read(*args, **kwargs)
        if notifications and not noticed.is_set():
            noticed.set()
            return []
        return notifications

    monkeypatch.setattr(recorder, "select_notifications", read_too_early)
    with Follower(recorder) as follower:
        other.insert("early")
        follower.wait_for("early")


def test_missing_file_is_found_later(tmp_path: Path) -> None:
    url = sa.make_url(f"sqlite:///{tmp_path / 'later.db'}")
    look = SQLiteDialect("pysqlite").watch(url)
    assert look is not None
    seen = {look()}
    assert look() in seen
    with closing(sqlite3.connect(tmp_path / "later.db", isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode = WAL", "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)"):
            connection.execute(statement)
            assert look() not in seen
            seen.add(look())


@pytest.mark.usefixtures("without_polling")
def test_removed_file_ends_no_subscription(path: Path, recorder: SQLAlchemyProcessRecorder) -> None:
    with closing(recorder.datastore.wait_for(recorder.wakeup_key)) as waiter:
        for file in path.parent.iterdir():
            file.unlink()
        wakes(waiter)
        waiter.clear()
        assert len(watchers()) == 1
        path.touch()
        wakes(waiter)


# -- the thread --


def test_thread_ends_with_the_last_subscription(apps: Applications, recorder: SQLAlchemyProcessRecorder) -> None:
    for _ in range(2):
        with Follower(recorder):
            (first,) = watchers()
            with Follower(apps.recorder("Other")), Follower(apps.recorder("Shop")):
                pass
            assert watchers() == [first]
        wait_until(no_watcher, "the thread ends")


def test_thread_ends_when_the_last_application_is_closed(path: Path) -> None:
    with Applications(f"sqlite:///{path}") as apps:
        recorder = apps.recorder("Shop")
        recorder.datastore.wait_for(recorder.wakeup_key)
        assert len(watchers()) == 1
    wait_until(no_watcher, "the thread ends")


def test_thread_ends_with_an_abandoned_subscription(recorder: SQLAlchemyProcessRecorder) -> None:
    recorder.insert_events(stored_events())
    subscription = recorder.subscribe()
    assert next(subscription)
    assert len(watchers()) == 1
    del subscription
    wait_until(no_watcher, "the thread ends")


@forks
@pytest.mark.usefixtures("without_polling")
def test_process_may_fork_while_a_subscription_sleeps(recorder: SQLAlchemyProcessRecorder) -> None:
    """The thread holds no connection, which a child could not use. The child's commits wake the parent."""
    waiter = recorder.datastore.wait_for(recorder.wakeup_key)
    for number in range(3):
        waiter.clear()

        def write() -> int:
            recorder.insert_events(stored_events(topic="child"))
            with Follower(recorder) as follower:
                recorder.insert_events(stored_events(topic="followed"))
                follower.wait_for("followed")
            return len(watchers())

        assert in_child(write) == 0
        assert not recorder.datastore.shared.pool._open  # noqa: SLF001 (a child must not inherit one to the file)
        wakes(waiter)
        with closing(sqlite3.connect(recorder.datastore.engine.url.database or "")) as connection:
            assert connection.execute("SELECT count(*) FROM shop_events").fetchone() == (2 * (number + 1),)
    waiter.close()


@pytest.mark.usefixtures("without_polling")
def test_fork_and_a_reading_process_wake_no_subscription(
    recorder: SQLAlchemyProcessRecorder, other: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last connection removes the log, and the next one creates an empty one. A subscription woken by that would
    read during the next fork, which is refused.
    """
    watch = SQLiteDialect.watch
    looks: list[None] = []

    def counting(self: SQLiteDialect, url: sa.URL) -> Callable[[], Any]:
        look: Any = watch(self, url)
        return lambda: (looks.append(None), look())  # type: ignore[func-returns-value]

    monkeypatch.setattr(SQLiteDialect, "watch", counting)
    with Follower(recorder) as follower:
        recorder.datastore.shared.before_fork()
        other.run("SELECT * FROM shop_events")
        enough = len(looks) + 20
        wait_until(lambda: len(looks) > enough, "the thread checks repeatedly")
        assert follower.reads == 1


@pytest.mark.usefixtures("without_polling")
def test_commit_just_before_a_fork_wakes_a_subscription(
    recorder: SQLAlchemyProcessRecorder, other: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_LOOK_INTERVAL", 1.0)  # the watcher has not seen it yet
    with Follower(recorder) as follower:
        other.insert("before")
        recorder.datastore.shared.before_fork()
        follower.wait_for("before")


# -- polling instead --


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevent the process from starting the watcher thread."""
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name == WATCHER:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.usefixtures("no_thread")
def test_process_that_cannot_start_a_thread_polls(
    apps: Applications, recorder: SQLAlchemyProcessRecorder, other: OtherProcess
) -> None:
    for number in range(2):
        with Follower(recorder) as follower, Follower(apps.recorder("Shop")) as second:
            assert recorder.datastore.shared.wakeups.poll_interval == wakeups.POLL_WHEN_NOT_LISTENING
            other.insert(f"{number}")
            follower.wait_for(f"{number}")
            second.wait_for(f"{number}")
    assert no_watcher()


@pytest.mark.parametrize(
    ("url", "interval"),
    [
        ("sqlite:///file:{path}?uri=true", "POLL_WHEN_NOT_LISTENING"),
        ("sqlite:///file:{path}?mode=rwc&uri=true", "POLL_WHEN_NOT_LISTENING"),
        ("sqlite://", "POLL_WHEN_LISTENING"),
        ("sqlite:///:memory:", "POLL_WHEN_LISTENING"),
        ("sqlite:///file:watched?mode=memory&cache=shared&uri=true", "POLL_WHEN_LISTENING"),
    ],
)
def test_other_databases_are_polled(path: Path, url: str, interval: str) -> None:
    with Applications(url.format(path=path)) as apps:
        recorder = apps.recorder("Shop")
        with Follower(recorder) as follower:
            assert recorder.datastore.shared.wakeups.poll_interval == getattr(wakeups, interval)
            assert no_watcher()
            recorder.insert_events(stored_events(topic="here"))
            follower.wait_for("here")
            if interval == "POLL_WHEN_NOT_LISTENING":
                with closing(OtherProcess(path)) as other:
                    other.insert("there")
                follower.wait_for("here", "there")


connect_elsewhere: Callable[[], sqlite3.Connection]


def test_file_known_only_to_a_creator_is_polled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL may not name the file."""
    connect = lambda: sqlite3.connect(path, check_same_thread=False)  # noqa: E731 (found by its name)
    monkeypatch.setitem(globals(), "connect_elsewhere", connect)
    url = f"sqlite:///{path.with_name('not-there.db')}"
    with Applications(url, connection_creator_topic=f"{__name__}:connect_elsewhere") as apps:
        recorder = apps.recorder("Shop")
        with closing(OtherProcess(path)) as other, Follower(recorder) as follower:
            other.insert("there")
            follower.wait_for("there")
            assert topics(recorder) == ["there"]
            assert recorder.datastore.shared.wakeups.poll_interval == wakeups.POLL_WHEN_NOT_LISTENING
