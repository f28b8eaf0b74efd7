"""Defects 8 to 10, 13 and 16 to 19 of the published package, which affect operation.

Where it is cheap, a test also runs its check against a wrong variant, which behaves like the published package, and
expects a failure. Otherwise the docstring says which variant was seen to fail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import (
    IntegrityError,
    OperationalError,
    PersistenceError,
    ProgrammingError,
    Tracking,
)
from sqlalchemy.engine import Connection

from eventsourcing_sqlalchemy.dialects.postgresql.dialect import PostgreSQLDialect
from eventsourcing_sqlalchemy.dialects.protocols import Batch
from eventsourcing_sqlalchemy.engines.engine import EngineSource
from eventsourcing_sqlalchemy.errors import ConnectionLostError, is_retryable
from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.notifications.wakeups import Wakeups
from eventsourcing_sqlalchemy.recorders import SQLAlchemyAggregateRecorder, SQLAlchemyProcessRecorder
from eventsourcing_sqlalchemy.shared_resources import Reference
from tenancy.testing.postgresql import Postgres
from tests.support.activity import Activity
from tests.support.applications import Applications, stored_events, topics, twin
from tests.support.deadlines import DEADLINE_SECONDS, run_together, wait_until
from tests.support.followers import Follower
from tests.support.wiretap import Wiretap

# -- 8 --


def check_no_wakeup_for_others(apps: Applications, *, from_elsewhere: bool) -> None:
    mine, other = apps.recorder(place="mine"), apps.recorder(place="other")
    writers = [apps.elsewhere(recorder) if from_elsewhere else twin(recorder) for recorder in (mine, other)]
    with Follower(mine) as follower, Follower(other) as other_follower:
        for number in range(5):
            writers[1].insert_events(stored_events(topic=str(number)))
            other_follower.wait_for(*[str(done) for done in range(number + 1)])
        # The other application's wake-ups have arrived. This one has read once; now it reads, finds an event, and reads
        # once more.
        writers[0].insert_events(stored_events(topic="mine"))
        follower.wait_for("mine")
        assert follower.reads <= 3


@pytest.mark.parametrize("from_elsewhere", [False, True], ids=["same engine", "another process"])
def test_defect_08_write_wakes_no_subscription_in_another_schema(
    apps: Applications, monkeypatch: pytest.MonkeyPatch, *, from_elsewhere: bool
) -> None:
    """Wrong variant: the table is identified by its name alone."""
    monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_LISTENING", 60.0)
    check_no_wakeup_for_others(apps, from_elsewhere=from_elsewhere)
    monkeypatch.setattr(TableName, "key", property(lambda self: len(self.name)))
    with pytest.raises(AssertionError):
        check_no_wakeup_for_others(apps, from_elsewhere=from_elsewhere)


# -- 9 --


def check_twenty_applications_use_one_engine(url: str, activity: Activity, seconds: float = DEADLINE_SECONDS) -> None:
    with Applications(url, pool_size=2, max_overflow=1) as apps:
        recorders = [apps.recorder(f"App{number}", place=f"place{number}") for number in range(20)]
        run_together([partial(recorder.insert_events, stored_events()) for recorder in recorders])
        assert len({id(recorder.datastore.engine.pool) for recorder in recorders}) == 1
        assert 1 <= activity.connections() <= 3
    activity.wait_until_none(seconds)


def test_defect_09_twenty_applications_use_one_engine_and_release_it(
    postgres_url: str, activity: Activity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variants: an engine per application; a close() that does nothing."""
    check_twenty_applications_use_one_engine(postgres_url, activity)
    with monkeypatch.context() as patch:
        patch.setattr(EngineSource, "key", lambda _: object())
        with pytest.raises(AssertionError):
            check_twenty_applications_use_one_engine(postgres_url, activity)
        activity.wait_until_none()
    kept: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(Reference, "release", lambda self: kept.append(self))  # noqa: PLW0108 (a method of list does not bind)
        with pytest.raises(AssertionError, match="no connection is left"):
            check_twenty_applications_use_one_engine(postgres_url, activity, 0.5)
    for reference in kept:
        reference.release()


# -- 10 --


def check_first_call_after_a_disconnect(apps: Applications, activity: Activity) -> None:
    recorder = apps.recorder()
    calls: list[Callable[[], object]] = [
        lambda: recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1)),
        lambda: recorder.insert_tracking(Tracking("upstream", 2)),
        lambda: topics(recorder),
        recorder.max_notification_id,
        lambda: in_a_transaction(recorder),
    ]
    for call in calls:
        activity.terminate()
        call()
    assert len(topics(recorder)) == 2


def in_a_transaction(recorder: SQLAlchemyProcessRecorder) -> None:
    with recorder.transaction():
        recorder.insert_events(stored_events())


def give_up(_: SQLAlchemyAggregateRecorder, batch: Batch) -> list[int]:
    """Do not retry."""
    raise ConnectionLostError(str(len(batch.events)))


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_defect_10_first_call_after_a_disconnect_succeeds(
    driver: str, postgres_server: Postgres, postgres_database: str, activity: Activity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant: idle connections are not checked before use, and nothing is retried."""
    # Otherwise the notifier could make the first call.
    monkeypatch.setattr(Wakeups, "committed", lambda *_: None)
    with Applications(postgres_server.url(postgres_database, driver)) as apps:
        check_first_call_after_a_disconnect(apps, activity)
        monkeypatch.setattr(PostgreSQLDialect, "is_stale", lambda *_: False)
        monkeypatch.setattr(SQLAlchemyAggregateRecorder, "write_batch_again", give_up)
        with pytest.raises(ConnectionLostError):
            check_first_call_after_a_disconnect(apps, activity)


# -- 13 --


def check_transaction_survives_a_duplicate(apps: Applications, place: str) -> None:
    recorder = apps.recorder(place=place)
    events = stored_events()
    recorder.insert_events(events)
    with recorder.transaction() as session:
        recorder.insert_events(stored_events(topic="before"))
        with pytest.raises(IntegrityError):
            recorder.insert_events(events)
        with pytest.raises(IntegrityError):
            recorder.insert_events(events, session=session)
        recorder.insert_events(stored_events(topic="after"))
    assert topics(recorder)[1:] == ["before", "after"]


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_defect_13_outer_transaction_continues_after_a_duplicate(
    database: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant, on PostgreSQL: no savepoint."""
    with Applications(request.getfixturevalue(database)) as apps:
        check_transaction_survives_a_duplicate(apps, "right")
        if database == "postgres_url":
            monkeypatch.setattr(Connection, "begin_nested", lambda _: nullcontext())
            with pytest.raises(PersistenceError):
                check_transaction_survives_a_duplicate(apps, "wrong")


def test_defect_13_errors_are_library_errors(
    postgres_server: Postgres, postgres_database: str, sqlite_url: str
) -> None:
    """Seen to fail against a `translate` that returns its argument."""
    url = postgres_server.url(postgres_database)
    with Applications(url, pool_size=1, max_overflow=0, pool_timeout=0.1) as apps:
        with pytest.raises(OperationalError, match="Cannot connect"):
            apps.recorder(url=sa.make_url(url).set(port=1).render_as_string(hide_password=False))
        recorder = apps.recorder()
        with pytest.raises(ProgrammingError, match="exists but cannot be used"):
            # A table of the wrong shape: a tracking table in place of the events table.
            SQLAlchemyProcessRecorder(recorder.datastore, events_table_name="app_tracking").create_table()
        # Inside an outer transaction, by calls of the package and by the user's own statements.
        with pytest.raises(ProgrammingError), recorder.transaction():
            SQLAlchemyProcessRecorder(recorder.datastore, events_table_name="missing").insert_events(stored_events())
        with pytest.raises(ProgrammingError), recorder.transaction() as session:
            session.execute(sa.text("SELECT * FROM missing"))
        # The pool is exhausted.
        with recorder.transaction(), pytest.raises(OperationalError, match="SQLALCHEMY_POOL_SIZE=1"):
            apps.recorder("Other", create_table="no").max_tracking_id("upstream")
    with Applications(sqlite_url) as apps:
        recorder = apps.recorder()
        with pytest.raises(ProgrammingError, match="exists but cannot be used"):
            SQLAlchemyProcessRecorder(recorder.datastore, events_table_name="app_tracking").create_table()
        with pytest.raises(ProgrammingError), recorder.transaction() as session:
            session.execute(sa.text("SELECT * FROM missing"))


# -- 16 --


@pytest.mark.parametrize("driver", ["sqlite", "psycopg2", "psycopg", "pg8000"])
def test_defect_16_subscriptions_cost_no_thread_and_no_pooled_connection(
    driver: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant: commits send no wake-ups, and polling would take too long.

    pg8000 cannot listen, so it relies on polling.
    """
    if driver == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        url = request.getfixturevalue("postgres_server").url(request.getfixturevalue("postgres_database"), driver)
    hears = driver != "pg8000"
    if hears:
        monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_LISTENING", 60.0)
        monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_NOT_LISTENING", 60.0)
    with Applications(url, pool_size=1, max_overflow=0) as apps:
        recorders = [apps.recorder(f"App{number}") for number in range(4)]
        before = threading.active_count()
        followers = [Follower(recorder) for recorder in recorders]
        with followers[0], followers[1], followers[2], followers[3]:
            # Besides the test's threads: at most one listener or file watcher for all of them.
            assert threading.active_count() - before - len(followers) <= hears
            for number, recorder in enumerate(recorders):
                recorder.insert_events(stored_events(topic=str(number)))
            for number, follower in enumerate(followers):
                follower.wait_for(str(number))
            # The pool's only connection is free.
            with recorders[0].transaction() as session:
                if driver != "sqlite":
                    assert session.scalar(sa.text("SELECT count(*) FROM pg_listening_channels()")) == 0
        if hears:
            monkeypatch.setattr(Wakeups, "committed", lambda *_: None)
            with Follower(recorders[0]) as follower:
                recorders[0].insert_events(stored_events(topic="unheard"))
                with pytest.raises(AssertionError):
                    wait_until(lambda: follower.topics == ["unheard"], "no subscription was woken", 0.3)


# -- 17 --


def lock_in_opposite_order(apps: Applications) -> list[PersistenceError | None]:
    """Write to two tables in opposite orders, each inside the other's transaction; return the outcomes.

    The server sees no deadlock: two of the four connections are idle, and their threads wait.
    """
    recorders = [apps.recorder("One"), apps.recorder("Two")]
    meeting = threading.Barrier(2)

    def write(mine: SQLAlchemyProcessRecorder, other: SQLAlchemyProcessRecorder) -> PersistenceError | None:
        try:
            with mine.transaction():
                mine.insert_events(stored_events())
                meeting.wait(20)
                other.insert_events(stored_events())
        except PersistenceError as error:
            return error
        return None

    return run_together([lambda: write(*recorders), lambda: write(*reversed(recorders))])


def test_defect_17_opposite_lock_orders_end_in_a_retryable_error(postgres_url: str, activity: Activity) -> None:
    """Wrong variant: without a lock timeout, both wait until their connections are terminated."""
    with Applications(postgres_url, lock_timeout=0.3) as apps:
        errors = [error for error in lock_in_opposite_order(apps) if error is not None]
        assert errors
        assert all(isinstance(error, OperationalError) and is_retryable(error) for error in errors)
        assert all("SQLALCHEMY_LOCK_TIMEOUT" in str(error) for error in errors)
    with Applications(postgres_url, lock_timeout=0) as apps, ThreadPoolExecutor(1) as threads:
        endless = threads.submit(lock_in_opposite_order, apps)
        wait_until(lambda: activity.blocked() == 2, "both wait")
        with pytest.raises(TimeoutError):
            endless.result(0.6)
        activity.terminate()
        assert any(endless.result(DEADLINE_SECONDS))


# -- 18 --

AS_PUBLISHED = """
CREATE TABLE {name}_events (
    id INTEGER NOT NULL PRIMARY KEY, originator_id BINARY(16) NOT NULL, originator_version BIGINT NOT NULL,
    topic TEXT NOT NULL, state BLOB NOT NULL
);
CREATE UNIQUE INDEX {name}_events_aggregate_idx ON {name}_events (originator_id, originator_version)
"""


def check_last_id_is_not_reused(recorder: SQLAlchemyProcessRecorder) -> None:
    assert recorder.insert_events(stored_events(3)) == [1, 2, 3]
    with recorder.transaction() as session:
        session.execute(sa.delete(recorder.events_table).where(recorder.events_table.c.id == 3))
    assert recorder.insert_events(stored_events()) == [4]


def test_defect_18_id_of_a_deleted_event_is_not_reused(sqlite_url: str) -> None:
    """Wrong variant: the published package's table, without AUTOINCREMENT."""
    with Applications(sqlite_url) as apps:
        check_last_id_is_not_reused(apps.recorder())
        wrong = apps.recorder("Wrong", create_table="no")
        with wrong.datastore.engine.begin() as connection:
            for statement in AS_PUBLISHED.format(name="wrong").split(";"):
                connection.execute(sa.text(statement))
        with pytest.raises(AssertionError):
            check_last_id_is_not_reused(wrong)


# -- 19 --


class ReadsWholeRow(SQLAlchemyProcessRecorder):
    """As published: the whole last row is read for its id."""

    def max_notification_id(self) -> int | None:
        with self.transaction(commit=False) as session:
            statement = sa.select(self.events_table).order_by(self.events_table.c.id.desc()).limit(1)
            row = session.execute(statement).first()
        return row.id if row else None


def check_state_is_not_read(recorder: SQLAlchemyProcessRecorder, wiretap: Wiretap) -> None:
    recorder.insert_events(stored_events(state=bytes(100_000)))
    wiretap.reset()
    assert recorder.max_notification_id() is not None
    assert 0 < wiretap.bytes_to_client < 10_000


def test_defect_19_highest_id_is_read_without_the_state(postgres_url: str) -> None:
    """Wrong variant: the whole row is read."""
    with Wiretap(postgres_url) as wiretap, Applications(wiretap.url) as apps:
        recorder = apps.recorder()
        check_state_is_not_read(recorder, wiretap)
        with pytest.raises(AssertionError):
            check_state_is_not_read(twin(recorder, recorder_class=ReadsWholeRow), wiretap)
