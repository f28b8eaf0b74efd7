"""Leftovers on a pooled connection never affect its next user."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pg8000.dbapi
import psycopg
import psycopg2
import pytest
import sqlalchemy as sa
from eventsourcing.persistence import PersistenceError, Tracking
from psycopg import IsolationLevel, RawCursor
from psycopg.rows import dict_row
from psycopg2.extras import RealDictCursor

from eventsourcing_sqlalchemy.dialects.postgresql.dialect import PostgreSQLDialect
from eventsourcing_sqlalchemy.dialects.sqlite.dialect import SQLiteDialect
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres
from tests.support.applications import Applications, stored_events, topics

ERRORS = (sa.exc.DBAPIError, sqlite3.Error, psycopg.Error, psycopg2.Error, pg8000.dbapi.Error)
DRIVERS = ("psycopg2", "psycopg", "pg8000")


@dataclass
class Bench:
    """A recorder with one pooled connection, and an outside recorder of the same tables."""

    recorder: SQLAlchemyProcessRecorder
    outside: SQLAlchemyProcessRecorder


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench for the parametrized driver."""
    driver = request.param
    if driver == "memory":
        url = "file:bench?mode=memory&cache=shared&uri=true"
        url = f"sqlite:///{url}"
    elif driver == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.url(request.getfixturevalue("postgres_database"), driver)
    lock_timeout = 0.2 if url.startswith("sqlite") else 5
    with Applications(url, pool_size=1, max_overflow=0, pool_timeout=5, lock_timeout=lock_timeout) as apps:
        recorder = apps.recorder()
        yield Bench(recorder, apps.elsewhere(recorder))


def on(*drivers: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bench", drivers, indirect=True)


# -- the ways to a connection: each runs statements and ends without cleaning up --

Run = Callable[[str], object]


@contextmanager
def connected(recorder: SQLAlchemyProcessRecorder) -> Iterator[Run]:
    with recorder.datastore.engine.connect() as connection:
        yield connection.exec_driver_sql
        connection.commit()


@contextmanager
def raw(recorder: SQLAlchemyProcessRecorder) -> Iterator[Run]:
    proxy = recorder.datastore.engine.raw_connection()
    cursor = proxy.cursor()
    yield cursor.execute
    cursor.close()
    proxy.close()


@contextmanager
def in_session(recorder: SQLAlchemyProcessRecorder) -> Iterator[Run]:
    with recorder.datastore.session_maker() as session:
        yield lambda statement: session.execute(sa.text(statement))
        session.commit()


@contextmanager
def in_given_connection(recorder: SQLAlchemyProcessRecorder) -> Iterator[Run]:
    with recorder.datastore.get_connection() as connection:
        yield connection.exec_driver_sql
        connection.commit()


@contextmanager
def in_transaction(recorder: SQLAlchemyProcessRecorder) -> Iterator[Run]:
    with recorder.transaction() as session:
        yield lambda statement: session.execute(sa.text(statement))


WAYS = [connected, raw, in_session, in_given_connection, in_transaction]

# -- PostgreSQL --

POSTGRES_LEFTOVERS = (
    "SET search_path TO nowhere",
    "SET statement_timeout TO 12345",
    "SET lock_timeout TO 1",
    "SET TIME ZONE 'Asia/Tokyo'",
    "SET ROLE pg_monitor",
    "SET SESSION AUTHORIZATION pg_monitor",
    "SET default_transaction_read_only TO on",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SELECT set_config('bench.secret', 'x', false)",
    "LISTEN a_channel",
    "SELECT pg_advisory_lock(42)",
    "CREATE TEMP TABLE app_events (id int)",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
)
# A session's complete state; the first column identifies the connection.
POSTGRES_STATE = """
SELECT pg_backend_pid(), current_user::text, session_user::text, current_setting('search_path'),
  current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('TimeZone'),
  current_setting('idle_in_transaction_session_timeout'), current_setting('default_transaction_read_only'),
  current_setting('default_transaction_isolation'), current_setting('transaction_isolation'),
  coalesce(current_setting('bench.secret', true), ''),
  (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE is_holdable),
  (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
  (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())
"""
READ_COMMITTED = "read committed"


def state(bench: Bench) -> list[Any]:
    """Return the state seen by the next user, in a call of the package and in a user's transaction."""
    ours = bench.recorder.datastore.run(lambda executor: executor.fetch(POSTGRES_STATE))[0]
    with bench.recorder.datastore.engine.connect() as connection:
        users = connection.exec_driver_sql(POSTGRES_STATE).fetchone()
    assert users is not None
    return [*ours, *users]


def check_next_user(bench: Bench, leave: Callable[[], object], look: Callable[[Bench], list[Any]] = state) -> None:
    before = look(bench)
    written = len(topics(bench.outside))
    leave()
    bench.recorder.insert_events(stored_events(), tracking=Tracking("upstream", written + 1))
    # Immediately durable, so it was not part of a leftover transaction.
    assert len(topics(bench.outside)) == written + 1
    assert bench.outside.max_tracking_id("upstream") == written + 1
    assert look(bench) == before


def leave(bench: Bench, way: Any, *statements: str) -> None:
    """Run statements in one way, and end it as an unaware user does."""
    with suppress(sa.exc.DBAPIError, PersistenceError), way(bench.recorder) as run:
        for statement in statements:
            # The driver may raise, and a user may ignore that.
            with suppress(*ERRORS):
                run(statement)


@pytest.mark.parametrize("way", WAYS)
@on(*DRIVERS)
def test_session_setting_does_not_reach_the_next_user(bench: Bench, way: Any) -> None:
    for statement in POSTGRES_LEFTOVERS:
        check_next_user(bench, partial(leave, bench, way, statement))
    check_next_user(bench, lambda: leave(bench, way, *POSTGRES_LEFTOVERS[:4], *POSTGRES_LEFTOVERS[6:]))


OPEN_TRANSACTIONS = {
    "begun": ("BEGIN", "CREATE TABLE lost (id int)"),
    "failed": ("BEGIN", "SELECT 1 / 0"),
    "failed after a setting": ("BEGIN", "SET statement_timeout TO 12345", "SELECT * FROM missing"),
    "with a lock": ("BEGIN", "LOCK TABLE app_tracking IN SHARE MODE"),
    "serializable": ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "SELECT 1"),
    "with a savepoint": ("BEGIN", "SAVEPOINT s", "SELECT 1 / 0"),
}


@pytest.mark.filterwarnings("ignore:there is already a transaction in progress")
@pytest.mark.parametrize("statements", OPEN_TRANSACTIONS.values(), ids=OPEN_TRANSACTIONS)
@on(*DRIVERS)
def test_open_transaction_does_not_reach_the_next_user(bench: Bench, statements: tuple[str, ...]) -> None:
    """Only a raw connection can leave one open; the other ways use SQLAlchemy's transactions."""
    check_next_user(bench, lambda: leave(bench, raw, *statements))
    with bench.outside.datastore.engine.connect() as connection:
        assert not sa.inspect(connection).has_table("lost")
    for way in (connected, in_session, in_given_connection):
        check_next_user(bench, partial(leave, bench, way, *statements[1:]))


def test_leftovers_without_a_reset_are_noticed(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong variant: a pool that resets nothing. Each leftover must then be noticed."""
    unnoticed = []
    monkeypatch.setattr(PostgreSQLDialect, "reset", lambda *_: None)
    for statements in [(statement,) for statement in POSTGRES_LEFTOVERS] + list(OPEN_TRANSACTIONS.values()):
        with Applications(postgres_url, pool_size=1, max_overflow=0) as apps:
            recorder = apps.recorder()
            bench = Bench(recorder, apps.elsewhere(recorder))
            try:
                check_next_user(bench, partial(leave, bench, raw, *statements))
            except (AssertionError, PersistenceError, sa.exc.SQLAlchemyError):
                continue
            unnoticed.append(statements)
    assert unnoticed == []


def set_attributes(connection: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(connection, name, value)


DRIVER_LEFTOVERS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "psycopg2 transaction": ("psycopg2", lambda connection: set_attributes(connection, autocommit=False)),
    "psycopg2 read-only": ("psycopg2", lambda connection: connection.set_session(readonly=True, autocommit=False)),
    "psycopg2 deferrable": ("psycopg2", lambda connection: connection.set_session(deferrable=True, autocommit=False)),
    "psycopg2 isolation": ("psycopg2", lambda connection: connection.set_isolation_level(3)),
    "psycopg2 rows": ("psycopg2", lambda connection: set_attributes(connection, cursor_factory=RealDictCursor)),
    "psycopg transaction": ("psycopg", lambda connection: set_attributes(connection, autocommit=False)),
    "psycopg read-only": ("psycopg", lambda connection: set_attributes(connection, autocommit=False, read_only=True)),
    "psycopg deferrable": ("psycopg", lambda connection: set_attributes(connection, autocommit=False, deferrable=True)),
    "psycopg isolation": (
        "psycopg",
        lambda connection: set_attributes(connection, autocommit=False, isolation_level=IsolationLevel.SERIALIZABLE),
    ),
    "psycopg rows": ("psycopg", lambda connection: set_attributes(connection, row_factory=dict_row)),
    "psycopg cursors": ("psycopg", lambda connection: set_attributes(connection, cursor_factory=RawCursor)),
    "pg8000 transaction": ("pg8000", lambda connection: set_attributes(connection, autocommit=False)),
}


@pytest.mark.parametrize(("bench", "change"), DRIVER_LEFTOVERS.values(), ids=DRIVER_LEFTOVERS, indirect=["bench"])
def test_attribute_of_the_driver_does_not_reach_the_next_user(bench: Bench, change: Callable[[Any], object]) -> None:
    def set_on_connection() -> None:
        proxy = bench.recorder.datastore.engine.raw_connection()
        change(proxy.driver_connection)
        proxy.close()

    check_next_user(bench, set_on_connection)
    with bench.recorder.transaction():
        bench.recorder.insert_events(stored_events())
    assert len(topics(bench.outside)) == 2


@on(*DRIVERS)
def test_setting_inside_a_transaction_ends_with_it(bench: Bench) -> None:
    """Neither the package's timeouts nor a user's transaction-local settings remain."""

    def set_locally() -> None:
        with pytest.raises(ZeroDivisionError), bench.recorder.transaction() as session:  # noqa: PT012 (the block rolls back)
            session.execute(sa.text("SET LOCAL search_path TO nowhere"))
            session.execute(sa.text("SET statement_timeout TO 1234"))
            raise ZeroDivisionError

    check_next_user(bench, set_locally)


# -- SQLite --

SQLITE_LEFTOVERS = (
    ("PRAGMA foreign_keys = ON",),
    ("PRAGMA query_only = ON",),
    ("PRAGMA busy_timeout = 1",),
    ("PRAGMA synchronous = OFF",),
    ("PRAGMA recursive_triggers = ON",),
    ("PRAGMA locking_mode = EXCLUSIVE", "SELECT * FROM app_events", "DELETE FROM app_events WHERE id < 0"),
    ("ATTACH ':memory:' AS attached", "CREATE TABLE attached.app_tracking (application_name, notification_id)"),
    ("CREATE TEMP TABLE app_events (id INTEGER PRIMARY KEY)",),
    ("CREATE TEMP TABLE mine AS SELECT 1 AS a", "CREATE INDEX temp.mine_index ON mine (a)"),
    ("CREATE TEMP VIEW app_tracking AS SELECT 1",),
    ("CREATE TEMP TRIGGER spy AFTER INSERT ON main.app_events BEGIN SELECT RAISE(ABORT, 'spied'); END",),
)
SQLITE_TRANSACTIONS = {
    "begun": ("BEGIN IMMEDIATE", "CREATE TABLE lost (id int)"),
    "only begun": ("BEGIN",),
    "failed": ("BEGIN", "INSERT INTO app_tracking VALUES ('a', 1)", "INSERT INTO app_tracking VALUES ('a', 2)"),
    "with a savepoint": ("SAVEPOINT s", "CREATE TABLE lost (id int)"),
}


def sqlite_state(bench: Bench) -> list[Any]:
    """Return a session's state as seen by the next user."""

    def look(run: Any) -> list[Any]:
        names = ("foreign_keys", "query_only", "busy_timeout", "synchronous", "recursive_triggers", "database_list")
        return [
            *[sorted(map(tuple, run(f"PRAGMA {name}"))) for name in names if name != "database_list"],
            sorted(row[1] for row in run("PRAGMA database_list") if row[1] != "temp"),
            list(run("SELECT * FROM temp.sqlite_master")),
        ]

    ours = bench.recorder.datastore.run(lambda executor: look(executor.fetch))
    with bench.recorder.datastore.engine.connect() as connection:
        return [*ours, *look(lambda statement: connection.exec_driver_sql(statement).fetchall())]


@pytest.mark.parametrize("way", WAYS)
@on("sqlite", "memory")
def test_sqlite_setting_does_not_reach_the_next_user(bench: Bench, way: Any) -> None:
    for statements in SQLITE_LEFTOVERS:
        check_next_user(bench, partial(leave, bench, way, *statements), sqlite_state)


@pytest.mark.parametrize("statements", SQLITE_TRANSACTIONS.values(), ids=SQLITE_TRANSACTIONS)
@on("sqlite")
def test_sqlite_transaction_does_not_reach_the_next_user(bench: Bench, statements: tuple[str, ...]) -> None:
    check_next_user(bench, lambda: leave(bench, raw, *statements), sqlite_state)
    with bench.outside.datastore.engine.connect() as connection:
        assert not sa.inspect(connection).has_table("lost")
    for way in (connected, in_session, in_given_connection):
        check_next_user(bench, partial(leave, bench, way, *statements[1:]), sqlite_state)


def test_sqlite_leftovers_without_a_reset_are_noticed(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong variant: a pool that resets nothing. Each leftover must then be noticed."""
    unnoticed = []
    monkeypatch.setattr(SQLiteDialect, "reset", lambda *_: None)
    for number, statements in enumerate([*SQLITE_LEFTOVERS, *SQLITE_TRANSACTIONS.values()]):
        with Applications(f"{sqlite_url}-{number}", pool_size=1, max_overflow=0, lock_timeout=0.1) as apps:
            recorder = apps.recorder()
            bench = Bench(recorder, apps.elsewhere(recorder, connect_args={"timeout": 0.1}))
            try:
                check_next_user(bench, partial(leave, bench, raw, *statements), sqlite_state)
            except (AssertionError, PersistenceError, sa.exc.SQLAlchemyError, sqlite3.Error):
                continue
            unnoticed.append(statements)
    assert unnoticed == []


SQLITE_DRIVER_LEFTOVERS: dict[str, Callable[[Any], object]] = {
    "transaction": lambda connection: set_attributes(connection, isolation_level="DEFERRED"),
    "rows": lambda connection: set_attributes(connection, row_factory=lambda *row: {"row": row}),
    "text": lambda connection: set_attributes(connection, text_factory=bytes),
}


@pytest.mark.parametrize("change", SQLITE_DRIVER_LEFTOVERS.values(), ids=SQLITE_DRIVER_LEFTOVERS)
@on("sqlite", "memory")
def test_attribute_of_the_sqlite_driver_does_not_reach_the_next_user(
    bench: Bench, change: Callable[[Any], object]
) -> None:
    def set_on_connection() -> Any:
        proxy = bench.recorder.datastore.engine.raw_connection()
        connection = proxy.driver_connection
        change(connection)
        proxy.close()
        return connection

    check_next_user(bench, set_on_connection, sqlite_state)
    # The connection was not discarded either, because it may be the only one of an in-memory database.
    connection = set_on_connection()
    bench.recorder.datastore.run(lambda executor: executor.fetch("SELECT 1"))
    proxy = bench.recorder.datastore.engine.raw_connection()
    assert proxy.driver_connection is connection
    proxy.close()
