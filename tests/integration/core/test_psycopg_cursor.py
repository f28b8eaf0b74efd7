"""Statements that bypass psycopg's cursor return and raise the same as the cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from eventsourcing.persistence import InternalError, ProgrammingError
from psycopg.rows import dict_row
from sqlalchemy import make_url

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.postgresql.drivers import driver_for
from eventsourcing_sqlalchemy.dialects.postgresql.drivers.psycopg_cursor import PsycopgCursor
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import wait_until

ENOUGH = 7
"""The number of runs after which a statement is prepared."""


class OtherConnection(psycopg.Connection[Any]):
    """A connection class of a user who traces cursors."""


@pytest.fixture
def connect(database: Database) -> Iterator[Callable[..., psycopg.Connection[Any]]]:
    opened: list[psycopg.Connection[Any]] = []

    def connect(cls: type[psycopg.Connection[Any]] = psycopg.Connection) -> psycopg.Connection[Any]:
        url = make_url(database.url("psycopg")).set(drivername="postgresql").render_as_string(hide_password=False)
        opened.append(cls.connect(url, autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def connection(connect: Callable[..., psycopg.Connection[Any]]) -> psycopg.Connection[Any]:
    return connect()


def ours(connection: psycopg.Connection[Any]) -> PsycopgCursor:
    """Return the executor of statements on a connection of one of our engines."""
    driver = driver_for("psycopg")
    driver.connected(connection, 1.0)
    driver.prepare(connection, "on")
    cursor = driver.cursor(connection)
    assert isinstance(cursor, PsycopgCursor)
    return cursor


def without_cursors(connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every use of the driver's cursor fail."""

    def fail(**_: Any) -> None:
        pytest.fail("A cursor of the driver was used.")

    monkeypatch.setattr(connection, "cursor", fail)


def of_driver(connection: psycopg.Connection[Any], statement: str, parameters: Sequence[Any]) -> Any:
    return outcome(lambda: connection.cursor(binary=True).execute(statement, parameters or None).fetchall())


def of_ours(cursor: PsycopgCursor, statement: str, parameters: Sequence[Any]) -> Any:
    def run() -> Any:
        cursor.execute(statement, parameters)
        return cursor.fetchall()

    return outcome(run)


def outcome(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except psycopg.Error as error:
        return type(error), error.sqlstate, error.diag.message_primary


VALUES = [
    ("text", "plain"),
    ("text", ""),
    ("text", "é 表 😀 '\\ %s $1"),
    ("text", "1"),
    ("int", 7),
    ("int", -7),
    ("bigint", 2**63 - 1),
    ("numeric", 2**70),
    ("bytea", b""),
    ("bytea", bytes(range(256))),
    ("uuid", "00000000-0000-0000-0000-000000000001"),
    ("text", None),
    ("boolean", True),
    ("float8", 1.5),
    ("numeric", Decimal("1.50")),
    ("uuid", UUID(int=1)),
    ("text[]", ["a", None]),
    ("timestamptz", datetime(2001, 2, 3, tzinfo=UTC)),
    # Values that cannot be sent, or have the wrong type.
    ("text", "a\0b"),
    ("int", 2**31),
    ("bigint", 2**63),
    ("uuid", "no uuid"),
    ("int", "no number"),
    ("text", object()),
    ("text", {}),
]


@pytest.mark.parametrize(("type_", "value"), VALUES)
def test_value_is_sent_as_by_the_driver(
    connection: psycopg.Connection[Any], connect: Callable[..., psycopg.Connection[Any]], type_: str, value: object
) -> None:
    statement, parameters = f"SELECT %s::{type_} AS found, 1 AS one", (value,)
    cursor, other = ours(connection), connect()
    for _ in range(ENOUGH):
        assert of_ours(cursor, statement, parameters) == of_driver(other, statement, parameters)


STATEMENTS: list[tuple[str, Sequence[Any]]] = [
    ("SELECT 1 WHERE false", ()),
    ("SELECT '%s', '100%'", ()),
    ("SELECT '100%%', %s::text", ("x",)),
    ("SELECT g, g::text, NULL FROM generate_series(1, 3000) g ORDER BY g LIMIT %s", (2500,)),
    ("SELECT left(%s::text, %s), repeat('x', %s)", ("three", 2, 3)),
    ("SELECT oid FROM pg_class WHERE relname = %s AND relpages >= %s", ("pg_type", 0)),
    ("SELECT FROM pg_class LIMIT 1", ()),
    ("SELECT nothing FROM nowhere WHERE a = %s", (1,)),
    ("SELECT 1 / %s::int", (0,)),
    ("SELECT 1 / (2500 - g) FROM generate_series(1, 3000) g WHERE g > %s", (0,)),
    ("SELEKT %s", (1,)),
    ("SELECT %s", ()),
    ("SELECT 1; SELECT 2", ()),
    ("", ()),
]


@pytest.mark.parametrize(("statement", "parameters"), STATEMENTS)
def test_statement_returns_the_same_as_by_the_driver(
    connection: psycopg.Connection[Any],
    connect: Callable[..., psycopg.Connection[Any]],
    statement: str,
    parameters: Sequence[Any],
) -> None:
    cursor, other = ours(connection), connect()
    for _ in range(ENOUGH):
        found, expected = of_ours(cursor, statement, parameters), of_driver(other, statement, parameters)
        if isinstance(expected, tuple) and expected[1] is None:  # the driver's error for a statement without rows
            expected = []
        assert found == expected


def test_statement_without_rows_returns_none(connection: psycopg.Connection[Any]) -> None:
    cursor = ours(connection)
    for statement in ("CREATE TEMP TABLE t (n int)", "BEGIN", "INSERT INTO t VALUES (1)", "COMMIT"):
        assert of_ours(cursor, statement, ()) == []
    for number in range(ENOUGH):
        assert of_ours(cursor, "INSERT INTO t VALUES (%s)", (number,)) == []
    cursor.executemany("INSERT INTO t VALUES (%s)", [(1,), (2,)])
    assert of_ours(cursor, "SELECT count(*) FROM t WHERE n >= %s", (0,)) == [(ENOUGH + 3,)]


def test_no_driver_cursor_is_used(connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the installed version would not benefit."""
    cursor = ours(connection)
    without_cursors(connection, monkeypatch)
    for _ in range(ENOUGH):
        assert of_ours(cursor, "SELECT %s::text, %s::int, %s::bytea", ("é", 1, b"\0")) == [("é", 1, b"\0")]
        assert of_ours(cursor, "SELECT 1", ()) == [(1,)]


def test_error_in_a_transaction_is_that_of_the_statement(connection: psycopg.Connection[Any]) -> None:
    cursor = ours(connection)
    for _ in range(ENOUGH):
        cursor.execute("BEGIN")
        with pytest.raises(psycopg.errors.NumericValueOutOfRange):
            cursor.execute("SELECT %s::int", (2**40,))
        cursor.execute("ROLLBACK")
        assert of_ours(cursor, "SELECT %s::int", (1,)) == [(1,)]


def test_text_reaches_a_connection_with_another_encoding(connection: psycopg.Connection[Any]) -> None:
    cursor = ours(connection)
    connection.execute("SET client_encoding TO LATIN1")
    for _ in range(ENOUGH):
        assert of_ours(cursor, "SELECT %s::text, ascii(%s)", ("é", "é")) == [("é", 233)]


def test_nothing_is_committed_on_a_connection_with_transactions(connection: psycopg.Connection[Any]) -> None:
    """With a user's setting, the driver begins a transaction at the first statement, and so must the package."""
    cursor = ours(connection)
    cursor.execute("CREATE TEMP TABLE t (n int)")
    connection.autocommit = False
    for _ in range(ENOUGH):
        cursor.execute("INSERT INTO t VALUES (%s)", (1,))
    connection.rollback()
    assert of_ours(cursor, "SELECT count(*) FROM t", ()) == [(0,)]


def test_connection_of_another_class_is_used_through_its_cursors(
    connect: Callable[..., psycopg.Connection[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(OtherConnection)
    cursor = ours(connection)
    assert of_ours(cursor, "SELECT %s::int", (1,)) == [(1,)]
    without_cursors(connection, monkeypatch)
    with pytest.raises(pytest.fail.Exception):
        ours(connection).execute("SELECT %s::int", (1,))


def test_users_connection_is_prepared_by_the_driver(connection: psycopg.Connection[Any]) -> None:
    for _ in range(ENOUGH):
        assert of_ours(driver_for("psycopg").cursor(connection), "SELECT %s::int", (1,)) == [(1,)]
    names = connection.execute("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%$1%'").fetchall()
    assert [name.startswith("_pg3") for (name,) in names] == [True]


def test_replaced_cursors_run_every_statement(connection: psycopg.Connection[Any]) -> None:
    """Tracing tools do this."""
    seen: list[object] = []

    class Tracing(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Tracing:
            seen.append(query)
            return super().execute(query, *arguments, **options)

    cursor = ours(connection)
    connection.cursor_factory = Tracing
    for _ in range(ENOUGH):
        assert of_ours(cursor, "SELECT %s::int", (1,)) == [(1,)]
    assert seen == ["SELECT %s::int"] * ENOUGH


def test_cursors_with_another_row_type_do_not_change_results(connection: psycopg.Connection[Any]) -> None:
    class Dicts(psycopg.Cursor[Any]):
        def __init__(self, connection: Any, *, row_factory: Any = None) -> None:
            super().__init__(connection, row_factory=dict_row)

    cursor = ours(connection)
    connection.cursor_factory = Dicts
    assert of_ours(cursor, "SELECT %s::int AS one", (1,)) == [(1,)]


def test_setting_of_a_session_does_not_reach_the_next_user(database: Database, place: str) -> None:
    with Applications(database.url("psycopg"), pool_size=1, max_overflow=0, pool_timeout=5) as apps:
        engine = apps.recorder("Shop", place).datastore.engine

        def settings() -> tuple[object, ...]:
            with engine.connect() as connection:
                found: Any = connection.connection.driver_connection
                before = found.cursor_factory, found.row_factory, found.prepare_threshold
                found.cursor_factory, found.row_factory, found.prepare_threshold = psycopg.RawCursor, dict_row, 1
            return before

        assert settings() == settings()


def test_unexpected_answer_closes_the_connection(database: Database, place: str) -> None:
    with Applications(database.url("psycopg"), pool_size=1, max_overflow=0, pool_timeout=5) as apps:
        recorder = apps.recorder("Shop", place)
        with pytest.raises(InternalError, match="unexpected response"):
            recorder.datastore.run(lambda executor: executor.fetch("COPY (SELECT 1) TO STDOUT"))
        recorder.insert_events(stored_events())
        assert len(topics(recorder)) == 1


def test_users_engine_in_pipeline_mode_is_refused(database: Database, place: str) -> None:
    """Its answers arrive when the pipeline ends: an append would seem to fail, and a log to be empty."""
    engine = sa.create_engine(database.url("psycopg"), pool_size=1, max_overflow=0, pool_reset_on_return=None)
    datastore = SQLAlchemyDatastore(engine=engine)
    recorder = SQLAlchemyApplicationRecorder(datastore, events_table_name="shop_events", schema_name=place)
    recorder.create_table()
    with closing(engine.raw_connection()) as proxy:
        driver_connection: Any = proxy.driver_connection
        pipeline = driver_connection.pipeline()
        pipeline.__enter__()
    with pytest.raises(ProgrammingError, match="pipeline mode"):
        recorder.insert_events(stored_events())
    pipeline.__exit__(None, None, None)
    assert recorder.max_notification_id() is None
    datastore.close()
    engine.dispose()


class Text(str):
    __slots__ = ()


def test_cursor_prepares_nothing_on_the_packages_connections(connection: psycopg.Connection[Any]) -> None:
    """The driver's names are equal for all clients: behind a pooler, a name can be another application's INSERT."""
    cursor = ours(connection)
    for _ in range(ENOUGH):
        assert of_ours(cursor, "SELECT %s::text", (Text("x"),)) == [("x",)]
    assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchall() == [(0,)]


def test_without_the_drivers_internals_everything_runs_on_its_cursors(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventsourcing_sqlalchemy.dialects.postgresql.drivers.psycopg_cursor.fetch", None)
    cursor = ours(connection)
    for _ in range(ENOUGH):
        assert of_ours(cursor, "SELECT %s::text", ("é",)) == [("é",)]
    without_cursors(connection, monkeypatch)
    with pytest.raises(pytest.fail.Exception):
        cursor.execute("SELECT 1")


def test_error_leaves_no_rows_of_the_previous_statement(connection: psycopg.Connection[Any]) -> None:
    cursor = ours(connection)
    assert of_ours(cursor, "SELECT %s::int", (1,)) == [(1,)]
    for statement in ("SELECT 1 / %s::int", "SELECT 1 / %s"):
        with pytest.raises(psycopg.Error):
            cursor.execute(statement, (0,))
        assert cursor.fetchall() == []


def test_pipeline_left_open_by_a_user_blocks_no_call(database: Database, place: str) -> None:
    with Applications(database.url("psycopg"), pool_size=1, max_overflow=0, pool_timeout=5) as apps:
        recorder = apps.recorder("Shop", place)
        recorder.insert_events(stored_events())
        with recorder.datastore.engine.connect() as connection:
            driver_connection = connection.connection.driver_connection
            assert isinstance(driver_connection, psycopg.Connection)
            pipeline = driver_connection.pipeline()
            pipeline.__enter__()
        assert len(topics(recorder)) == 1
        recorder.insert_events(stored_events())
        assert len(topics(recorder)) == 2


def test_lost_connection_is_an_operational_error(connection: psycopg.Connection[Any], database: Database) -> None:
    cursor = ours(connection)
    cursor.execute("SELECT 1")
    with database.engine.connect() as administrator:
        administrator.exec_driver_sql(f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")
    with pytest.raises(psycopg.OperationalError):
        cursor.execute("SELECT %s::int", (1,))
    with pytest.raises(psycopg.OperationalError):
        cursor.execute("SELECT %s::int", (1,))
    assert connection.closed


def test_terminated_connection_names_the_cause(connection: psycopg.Connection[Any], database: Database) -> None:
    cursor = ours(connection)
    with ThreadPoolExecutor(1) as threads:
        # In the middle of a long result.
        running = threads.submit(cursor.execute, "SELECT pg_sleep(g / 1000) FROM generate_series(1, 9999) g", ())
        with database.engine.connect() as administrator:
            statement = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
            pid = connection.info.backend_pid
            wait_until(lambda: administrator.exec_driver_sql(statement, (pid,)).scalar() == "PgSleep", "it sleeps")
            administrator.exec_driver_sql("SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(psycopg.errors.AdminShutdown):
            running.result(10)


def test_statements_of_a_connection_are_released_with_it(connect: Callable[..., psycopg.Connection[Any]]) -> None:
    driver = driver_for("psycopg")
    connection = psycopg.Connection.connect(connect().info.dsn, autocommit=True)
    driver.connected(connection, 1.0)
    driver.cursor(connection).execute("SELECT %s::text", (str(uuid4()),))
    statements = driver._statements  # type: ignore[attr-defined]  # noqa: SLF001 (not visible otherwise)
    assert len(statements) == 1
    connection.close()
    del connection
    assert len(statements) == 0
