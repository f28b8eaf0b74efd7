"""Tables of the published package are used in place and stay unchanged, even while it writes to them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
import sqlalchemy as sa
from eventsourcing.persistence import DataError, IntegrityError, ProgrammingError, StoredEvent, Tracking
from eventsourcing.utils import Environment
from sqlalchemy import make_url

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import SQLAlchemyAggregateRecorder, SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres
from tests.support.applications import Applications, stored_events
from tests.support.ordering import PollingReader, assert_in_order, write_in_rows
from tests.support.published_tables import COLUMNS, PublishedTables

LONG_NAME = "x" * 33


@pytest.fixture(params=["sqlite", "psycopg2", "psycopg in a schema", "pg8000"])
def place(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """The URL of a database without tables, and a schema."""
    driver, _, schema = request.param.partition(" in a ")
    if driver == "sqlite":
        return request.getfixturevalue("sqlite_url"), None
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.url(request.getfixturevalue("postgres_database"), driver), schema or None


@pytest.fixture
def old(place: tuple[str, str | None]) -> Iterator[PublishedTables]:
    tables = PublishedTables(*place)
    yield tables
    tables.close()


@pytest.fixture
def factory(place: tuple[str, str | None], old: PublishedTables) -> Iterator[SQLAlchemyFactory]:
    with Applications(place[0]) as apps:
        yield apps.factory("School", old.schema)


def process_recorder(factory: SQLAlchemyFactory) -> SQLAlchemyProcessRecorder:
    recorder = factory.process_recorder()
    assert isinstance(recorder, SQLAlchemyProcessRecorder)
    return recorder


def test_tables_are_used_and_stay_unchanged(factory: SQLAlchemyFactory, old: PublishedTables) -> None:
    """Seen to fail against an ALTER of the tracking table, and against DDL without IF NOT EXISTS."""
    before = old.shape()
    assert list(before) == ["school_events", "school_snapshots", "school_tracking"]
    recorder = process_recorder(factory)
    snapshots = factory.aggregate_recorder("snapshots")

    first = [StoredEvent(old.originator_id, version, "old", b"\0\xff") for version in (1, 2)]
    assert recorder.select_events(old.originator_id) == first
    assert snapshots.select_events(old.originator_id) == first[1:]
    assert recorder.max_notification_id() == 2
    assert recorder.max_tracking_id("upstream") == 7

    more = stored_events(2, old.originator_id, first_version=3)
    assert recorder.insert_events(more[:1], tracking=Tracking("upstream", 8)) == [3]
    with recorder.transaction():
        assert recorder.insert_events(more[1:], tracking=Tracking("upstream", 9)) == [4]
    snapshots.insert_events(more[:1])
    with pytest.raises(IntegrityError):
        recorder.insert_events(first[1:])
    with pytest.raises(IntegrityError):
        recorder.insert_tracking(Tracking("upstream", 9))

    assert recorder.select_events(old.originator_id) == first + more
    assert [notification.id for notification in recorder.select_notifications(1, 10)] == [1, 2, 3, 4]
    assert snapshots.select_events(old.originator_id, desc=True, limit=1) == more[:1]
    assert recorder.max_tracking_id("upstream") == 9
    assert old.shape() == before
    if not old.prefix:
        # The published package can read what this one wrote.
        assert old.scalar("SELECT typeof(originator_id) || length(originator_id) FROM school_events WHERE id = 3") == (
            "blob16"
        )


def test_tables_are_used_without_the_right_to_create_any(place: tuple[str, str | None], old: PublishedTables) -> None:
    with Applications(place[0], create_table="no") as apps:
        recorder = process_recorder(apps.factory("School", old.schema))
        recorder.insert_events(stored_events(), tracking=Tracking("upstream", 8))
        assert recorder.max_notification_id() == 3


def test_name_too_long_for_the_old_table_is_refused_and_nothing_is_written(
    factory: SQLAlchemyFactory, old: PublishedTables
) -> None:
    """SQLite has no limit, despite the column type. Seen to fail against a column of type text."""
    recorder = process_recorder(factory)
    recorder.insert_tracking(Tracking(LONG_NAME[1:], 1))
    if not old.prefix:
        recorder.insert_tracking(Tracking(LONG_NAME, 1))
        return
    calls: list[Callable[[], object]] = [
        lambda: recorder.insert_events(stored_events(), tracking=Tracking(LONG_NAME, 1)),
        lambda: recorder.insert_tracking(Tracking(LONG_NAME, 1)),
        lambda: insert_in_transaction(recorder),
    ]
    for call in calls:
        with pytest.raises(DataError, match=r"tracking.* at most 32 characters.*migrate_tables"):
            call()
    assert recorder.max_tracking_id(LONG_NAME) is None
    assert recorder.max_notification_id() == 2


def insert_in_transaction(recorder: SQLAlchemyProcessRecorder) -> None:
    with recorder.transaction():
        recorder.insert_events(stored_events(), tracking=Tracking(LONG_NAME, 1))


def test_application_adopts_aggregates_of_the_old_tables(factory: SQLAlchemyFactory, old: PublishedTables) -> None:
    aggregates = factory.aggregate_recorder()
    assert isinstance(aggregates, SQLAlchemyAggregateRecorder)
    aggregates.insert_events(stored_events(1, old.originator_id, first_version=3))
    assert len(aggregates.select_events(old.originator_id)) == 3


# -- beside a writer of the published package --


class OldWriter(threading.Thread):
    """Writes like the published package: lock the table, insert row by row, commit."""

    def __init__(self, url: str, *, locks: bool) -> None:
        super().__init__(name="old writer")
        self._parameters = make_url(url).translate_connect_args(username="user", database="dbname")
        self._locks = locks
        self.stopping = threading.Event()
        self.ids: list[list[int]] = []

    def run(self) -> None:
        with contextlib.closing(psycopg2.connect(**self._parameters)) as connection:
            while not self.stopping.is_set():
                with connection, connection.cursor() as cursor:
                    if self._locks:
                        cursor.execute("LOCK TABLE school_events IN EXCLUSIVE MODE")
                    self.ids.append([self._insert(cursor, uuid4(), version) for version in range(1, 6)])

    @staticmethod
    def _insert(cursor: Any, originator_id: UUID, version: int) -> int:
        cursor.execute(
            f"INSERT INTO school_events {COLUMNS} VALUES (%s, %s, 'old', '') RETURNING id",
            (str(originator_id), version),
        )
        return int(cursor.fetchone()[0])


def check_order_beside_the_old_writer(url: str, rounds: int, *, locks: bool) -> None:
    with Applications(url, pool_size=8) as apps:
        recorder, in_rows = apps.recorder("School"), apps.recorder("School")
        write_in_rows(in_rows)
        old_writers = [OldWriter(url, locks=locks) for _ in range(2)]
        ours: list[list[int]] = []

        def write(recorder: SQLAlchemyProcessRecorder, calls: int) -> None:
            ours.extend(list(recorder.insert_events(stored_events(1 + number % 7)) or ()) for number in range(calls))

        # The form for large batches only occasionally: it takes the two locks in the other order, the old writer queues
        # between them, and the server resolves that only after deadlock_timeout (1 s).
        threads = [threading.Thread(target=write, args=(recorder, rounds)) for _ in range(3)]
        threads.append(threading.Thread(target=write, args=(in_rows, 2)))
        with PollingReader(recorder) as reader:
            for thread in (*threads, *old_writers):
                thread.start()
            for thread in threads:
                thread.join()
            for writer in old_writers:
                writer.stopping.set()
                writer.join()
        theirs = old_writers[0].ids + old_writers[1].ids
        assert len(theirs) > 1
        assert len(ours) == 3 * rounds + 2
        assert_in_order(ours + theirs, reader.ids)


def test_table_is_shared_with_an_old_writer_under_load(postgres_url: str, repeat: Callable[[int], range]) -> None:
    """Wrong variant: an old writer without the lock."""
    old = PublishedTables(postgres_url, None)
    check_order_beside_the_old_writer(postgres_url, len(repeat(100)), locks=True)

    def try_often() -> None:
        for _ in range(50):
            check_order_beside_the_old_writer(postgres_url, 20, locks=False)

    with pytest.raises(AssertionError, match=r"late|interleaved"):
        try_often()
    old.close()


def test_a_follower_with_events_in_the_default_schema_gets_no_empty_table(postgres_url: str) -> None:
    """The published package ignores the schema only for the events of a following application."""
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA school")
        connection.exec_driver_sql(
            "CREATE TABLE school.reports_tracking (application_name varchar(32) PRIMARY KEY, notification_id bigint)"
        )
        connection.exec_driver_sql("INSERT INTO school.reports_tracking VALUES ('upstream', 5)")
    factory = SQLAlchemyFactory(Environment("Reports", {"SQLALCHEMY_URL": postgres_url, "SQLALCHEMY_SCHEMA": "school"}))
    with pytest.raises(ProgrammingError, match='ALTER TABLE "reports_events" SET SCHEMA "school"'):
        factory.process_recorder()
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT to_regclass('school.reports_events')").scalar() is None
        connection.exec_driver_sql("DELETE FROM school.reports_tracking")
    factory.process_recorder().insert_tracking(Tracking("upstream", 1))
    factory.close()
    engine.dispose()
