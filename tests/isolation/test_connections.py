"""Hundreds of applications on one engine, threads that come and go, forks: no connection too many, none left behind."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import InterfaceError, PersistenceError, Tracking

from eventsourcing_sqlalchemy.engines import EngineSource
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from eventsourcing_sqlalchemy.transactions import OpenTransaction
from tenancy.demo.server import Postgres
from tests.activity import Activity
from tests.applications import Applications, stored_events, topics
from tests.deadlines import run_together, wait_until
from tests.engine_count import engines_in_use
from tests.followers import Follower

POOL_SIZE, MAX_OVERFLOW = 2, 1


@pytest.fixture
def activity(postgres_server: Postgres, postgres_database: str) -> Iterator[Activity]:
    with Activity(postgres_server, postgres_database) as activity:
        yield activity


# -- many --


def check_many_applications(url: str, activity: Activity, places: list[str]) -> None:
    with Applications(url, pool_size=POOL_SIZE, max_overflow=MAX_OVERFLOW) as apps, activity.watch() as counts:
        recorders = [apps.recorder(place=place) for place in places]

        def write_to_some(first: int) -> None:
            for recorder in recorders[first::8]:
                recorder.insert_events(stored_events(2), tracking=Tracking("upstream", 1))
                with recorder.transaction():
                    recorder.insert_events(stored_events())
                assert len(topics(recorder)) == 3

        run_together([partial(write_to_some, first) for first in range(8)], 60)
        assert 0 < max(counts) <= POOL_SIZE + MAX_OVERFLOW
        assert len(engines_in_use()) == 1
        pool: Any = recorders[0].datastore.engine.pool
        # What tells other processes of the last write may still be under way.
        wait_until(lambda: pool.checkedout() == 0, "at rest nothing is checked out")
        wait_until(lambda: activity.connections() <= POOL_SIZE, "what overflows the pool is closed")
    activity.wait_until_none()
    assert engines_in_use() == []


def test_two_hundred_applications_share_one_engine(
    postgres_url: str, activity: Activity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant, with a few: an engine for each."""
    check_many_applications(postgres_url, activity, [f"place {number}" for number in range(200)])
    # The engine is usable again.
    with Applications(postgres_url) as apps:
        assert len(topics(apps.recorder(place="place 7"))) == 3
        assert activity.connections() >= 1
    activity.wait_until_none()
    monkeypatch.setattr(EngineSource, "key", lambda _: object())
    with pytest.raises(AssertionError):
        check_many_applications(postgres_url, activity, [f"wrong {number}" for number in range(12)])


def test_followers_of_many_applications_cost_one_connection(postgres_url: str, activity: Activity) -> None:
    with Applications(postgres_url, pool_size=1, max_overflow=0) as apps:
        recorders = [apps.recorder(place=f"place {number}") for number in range(10)]
        followers = [Follower(recorder) for recorder in recorders]
        threads = threading.active_count()
        for follower in followers:
            follower.__enter__()
        assert threading.active_count() - threads == len(followers) + 1
        for recorder in recorders:
            recorder.insert_events(stored_events(topic="new"))
        for follower in followers:
            follower.wait_for("new")
        assert activity.connections() <= 2
        for follower in followers:
            follower.__exit__()
        wait_until(lambda: activity.connections() <= 1, "the listening connection is closed")
    activity.wait_until_none()


def test_engine_of_applications_that_nobody_closes_goes_with_them(postgres_url: str, activity: Activity) -> None:
    with Applications(postgres_url) as apps:
        closed = apps.recorder()
        forgotten = Applications(postgres_url).recorder(place="other")
        forgotten.insert_events(stored_events())
        del forgotten
        gc.collect()
        closed.insert_events(stored_events())
    gc.collect()
    assert engines_in_use() == []
    activity.wait_until_none()


# -- closing --


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_closed_application_says_so_and_the_others_go_on(database: str, request: pytest.FixtureRequest) -> None:
    with Applications(request.getfixturevalue(database)) as apps:
        mine, other = apps.recorder("Mine"), apps.recorder("Other")
        mine.datastore.close()
        mine.datastore.close()
        calls: list[Callable[[], object]] = [
            lambda: mine.insert_events(stored_events()),
            lambda: topics(mine),
            lambda: mine.insert_tracking(Tracking("upstream", 1)),
            lambda: mine.transaction().__enter__(),
            lambda: mine.datastore.engine,
            lambda: next(mine.subscribe()),
        ]
        for call in calls:
            with pytest.raises(InterfaceError, match="'Mine' is closed"):
                call()
        other.insert_events(stored_events())
        again = apps.recorder("Mine")
        again.insert_events(stored_events())
        assert len(topics(again)) == 1


def test_transaction_that_is_open_while_its_application_closes_ends_as_it_should(
    postgres_url: str, activity: Activity
) -> None:
    with Applications(postgres_url) as apps:
        recorder = apps.recorder()
        with recorder.transaction() as session:
            recorder.insert_events(stored_events())
            recorder.datastore.close()
            session.execute(sa.text("SELECT 1"))
    activity.wait_until_none()
    with Applications(postgres_url) as apps:
        assert len(topics(apps.recorder())) == 1


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_threads_use_applications_while_others_close_theirs(
    database: str, request: pytest.FixtureRequest, repeat: Callable[[int], range]
) -> None:
    """Each closes the last application of the engine now and then, while another one leases it."""
    url = request.getfixturevalue(database)
    numbers = count()
    written = []

    def come_and_go() -> None:
        for _ in repeat(8):
            with Applications(url, lock_timeout=20) as apps:
                recorder = apps.recorder()
                recorder.insert_events(stored_events(topic=str(next(numbers))))
                written.append(len(topics(recorder)))

    with Applications(url, lock_timeout=20) as apps:
        apps.recorder()
    run_together([come_and_go] * 6, 60)
    assert engines_in_use() == []
    with Applications(url) as apps:
        assert sorted(map(int, topics(apps.recorder()))) == list(range(len(written)))


def test_application_closed_under_a_thread_fails_with_an_error_of_the_library(
    postgres_url: str, activity: Activity
) -> None:
    with Applications(postgres_url) as apps:
        recorder = apps.recorder()
        acknowledged = [0]
        outcomes: list[Exception] = []

        def write_until_closed() -> None:
            try:
                while True:
                    recorder.insert_events(stored_events())
                    acknowledged[0] += 1
            except Exception as error:  # noqa: BLE001 (looked at below)
                outcomes.append(error)

        thread = threading.Thread(target=write_until_closed)
        thread.start()
        wait_until(lambda: acknowledged[0] > 5, "the thread writes")
        recorder.datastore.close()
        thread.join()
        assert [type(error) for error in outcomes] == [InterfaceError]
    activity.wait_until_none()
    with Applications(postgres_url) as apps:
        assert len(topics(apps.recorder())) >= acknowledged[0]


# -- forks --


def in_child(work: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return what `work` returns in a forked child, as JSON carries it; fail when it raises or hangs there."""
    result = start_child(work)
    return result(seconds)


def start_child(work: Callable[[], Any]) -> Callable[[float], Any]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            answer = json.dumps({"result": work()})
            status = 0
        except BaseException as error:  # noqa: BLE001 (told to the parent)
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"})
        os.write(writing, answer.encode())
        os._exit(status)
    os.close(writing)

    def result(seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                os.close(reading)
                pytest.fail("the child hangs")
            time.sleep(0.005)
        with os.fdopen(reading) as pipe:
            answer = json.loads(pipe.read())
        assert "error" not in answer, answer["error"]
        return answer["result"]

    return result


def backend_pid(recorder: SQLAlchemyProcessRecorder) -> int:
    """Return which server process the pool's connection has."""
    return int(recorder.datastore.run(lambda executor: executor.fetch("SELECT pg_backend_pid()"))[0][0])


# Python 3.12 and later warn of threads, of which pytest and the package have some.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@forks
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_child_and_parent_share_no_connection(
    postgres_server: Postgres, postgres_database: str, activity: Activity, driver: str
) -> None:
    with Applications(postgres_server.url(postgres_database, driver), pool_size=1, max_overflow=0) as apps:
        recorder = apps.recorder()
        recorder.insert_events(stored_events(topic="before"))
        mine = backend_pid(recorder)

        def use_and_close() -> int:
            pid = backend_pid(recorder)
            for _ in range(20):
                recorder.insert_events(stored_events(topic="child"))
            with Follower(recorder) as follower:
                recorder.insert_events(stored_events(topic="last"))
                # Among those of the parent, perhaps.
                wait_until(lambda: "last" in follower.topics, "the child follows")
            recorder.datastore.close()
            gc.collect()
            return pid

        child = start_child(use_and_close)
        for _ in range(20):
            recorder.insert_events(stored_events(topic="parent"))
        assert child(20) != mine
        assert backend_pid(recorder) == mine
        found = topics(recorder)
        assert (found.count("before"), found.count("child"), found.count("parent")) == (1, 20, 20)
    activity.wait_until_none()


@forks
def test_child_does_not_use_the_open_transaction_of_its_parent(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant: whoever has the context has the transaction."""
    with Applications(postgres_url) as apps:
        recorder = apps.recorder()

        def write() -> bool:
            has_session = recorder.datastore.current_session() is not None
            if not has_session:
                recorder.insert_events(stored_events(topic="child"))
            return has_session

        with pytest.raises(ZeroDivisionError), recorder.transaction() as session:  # noqa: PT012 (the block rolls back)
            session.execute(sa.text("SELECT 1"))
            assert in_child(write) is False
            recorder.insert_events(stored_events(topic="parent"))
            monkeypatch.setattr(OpenTransaction, "is_owned", lambda _: True)
            assert in_child(write) is True
            monkeypatch.undo()
            raise ZeroDivisionError
        assert topics(recorder) == ["child"]


@forks
def test_child_of_a_busy_parent_works(postgres_url: str, repeat: Callable[[int], range]) -> None:
    """Threads of the parent hold locks and connections at the moment of the fork."""
    with Applications(postgres_url, pool_size=2, max_overflow=0, lock_timeout=20) as apps:
        recorder = apps.recorder()
        stopping = threading.Event()
        written = [0]

        def write_on() -> None:
            while not stopping.is_set():
                recorder.insert_events(stored_events(topic="parent"))
                written[0] += 1

        def more_than(number: int) -> bool:
            return written[0] > number

        def in_children() -> None:
            try:
                for _ in repeat(10):
                    wait_until(partial(more_than, written[0] + 2), "the threads write")
                    in_child(lambda: recorder.insert_events(stored_events(topic="child")))
            finally:
                stopping.set()

        run_together([write_on, write_on, in_children], 60)
        assert topics(recorder).count("child") == len(repeat(10))
        assert topics(recorder).count("parent") >= written[0]


@forks
def test_child_keeps_what_it_writes_to_sqlite_after_its_parent_has_closed(sqlite_url: str) -> None:
    """SQLite remembers, per process, which files it has open. A child that inherits this takes no lock of its own.

    Then the parent, which believes to be the last one, removes the log that the child writes to.
    """
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    with Applications(sqlite_url) as apps:
        recorder = apps.recorder()
        recorder.insert_events(stored_events(topic="parent"))

        def write_around_the_end_of_the_parent() -> None:
            recorder.insert_events(stored_events(topic="child"))
            os.write(to_parent, b"x")
            os.read(from_parent, 1)
            recorder.insert_events(stored_events(topic="child later"))

        child = start_child(write_around_the_end_of_the_parent)
        os.read(from_child, 1)
    os.write(to_child, b"x")
    child(20)
    for descriptor in (from_child, to_parent, from_parent, to_child):
        os.close(descriptor)
    with Applications(sqlite_url) as apps:
        assert topics(apps.recorder()) == ["parent", "child", "child later"]


@forks
def test_child_of_a_parent_that_was_writing_to_sqlite_works_or_refuses(sqlite_url: str) -> None:
    """What SQLite remembers of a lock of the parent is never released in the child."""
    from_parent, to_child = os.pipe()
    with Applications(sqlite_url, lock_timeout=1) as apps:
        recorder = apps.recorder()

        def write_afterwards() -> str:
            os.read(from_parent, 1)
            try:
                recorder.insert_events(stored_events(topic="child"))
            except PersistenceError as error:
                return str(error)
            return "written"

        with recorder.transaction():
            recorder.insert_events(stored_events(topic="parent"))
            child = start_child(write_afterwards)
        os.write(to_child, b"x")
        outcome = child(20)
        os.close(from_parent)
        os.close(to_child)
        assert outcome == "written" or "fork" in outcome
        assert topics(recorder) == ["parent", "child"][: 1 + (outcome == "written")]
