"""Forked processes: child and parent share no connection, no transaction and no lock."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from functools import partial

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import PersistenceError
from sqlalchemy.orm import scoped_session, sessionmaker

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from eventsourcing_sqlalchemy.transactions import OpenTransaction
from tenancy.testing.postgresql import Postgres
from tests.support.activity import Activity
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import run_together, wait_until
from tests.support.followers import Follower
from tests.support.forked import forks, in_child, start_child


def backend_pid(recorder: SQLAlchemyProcessRecorder) -> int:
    """Return the server process of the pooled connection."""
    return int(recorder.datastore.run(lambda executor: executor.fetch("SELECT pg_backend_pid()"))[0][0])


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
                # They may be interleaved with the parent's.
                wait_until(lambda: "last" in follower.topics, "the child receives them")
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
    """Wrong variant: the transaction follows the context into the child."""
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
    """Threads of the parent hold locks and connections during the fork."""
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
    """SQLite keeps a list of open files per process. A child that inherits it takes no lock of its own.

    The parent, as the apparent last user, then removes the log that the child writes to.
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
def test_child_forked_during_a_sqlite_write_works_or_refuses(sqlite_url: str) -> None:
    """A parent's lock in SQLite's inherited state is never released in the child."""
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


@forks
def test_child_forked_during_a_write_can_write_through_a_scoped_session(sqlite_url: str) -> None:
    engine = sa.create_engine(sqlite_url, poolclass=sa.pool.NullPool)
    scoped = scoped_session(sessionmaker(bind=engine))
    recorder = SQLAlchemyProcessRecorder(SQLAlchemyDatastore(session=scoped), events_table_name="dog_events")
    is_writing, is_forked = threading.Event(), threading.Event()

    def write() -> None:
        with recorder.datastore.writing():
            is_writing.set()
            is_forked.wait(20)

    def create_and_fill() -> list[str]:
        recorder.create_table()
        recorder.insert_events(stored_events(topic="child"))
        scoped.commit()
        return topics(recorder)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert is_writing.wait(20)
        assert in_child(create_and_fill) == ["child"]
    finally:
        is_forked.set()
        writer.join()
