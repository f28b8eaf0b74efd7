"""Settings that users apply to every new connection survive transactions; leftovers do not."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tenancy.testing.postgresql import Postgres
from tests.support.applications import Applications, stored_events, topics

DRIVERS = ("psycopg2", "psycopg", "pg8000")


@pytest.fixture
def role(postgres_server: Postgres) -> Iterator[str]:
    """A temporary role."""
    name = f"role_{secrets.token_hex(6)}"
    engine = sa.create_engine(postgres_server.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} IN ROLE pg_monitor")
        yield name
        connection.exec_driver_sql(f"DROP ROLE {name}")
    engine.dispose()


def prepare(connection: Any, role: str) -> Any:
    cursor = connection.cursor()
    cursor.execute("SET timezone = 'Asia/Tokyo'")
    cursor.execute("SET work_mem = '5MB'")
    cursor.execute("SET search_path = 'it''s', '\\x'")
    cursor.execute("SET statement_timeout = 71000")
    cursor.execute(f"SET SESSION AUTHORIZATION {role}")
    cursor.execute("SET ROLE pg_monitor")
    cursor.close()
    connection.commit()
    return connection


@contextmanager
def prepared_by_creator(url: str, role: str) -> Iterator[SQLAlchemyDatastore]:
    parsed = sa.make_url(url)
    driver = import_module(parsed.get_dialect().import_dbapi().__name__)
    database = "database" if driver.__name__.startswith("pg8000") else "dbname"
    arguments = parsed.translate_connect_args(username="user", database=database)
    with closing(SQLAlchemyDatastore(url=url, creator=lambda: prepare(driver.connect(**arguments), role))) as datastore:
        yield datastore


@contextmanager
def prepared_by_listener(url: str, role: str) -> Iterator[SQLAlchemyDatastore]:
    with closing(SQLAlchemyDatastore(url=url)) as datastore:
        sa.event.listen(datastore.engine, "connect", lambda connection, _: prepare(connection, role))
        yield datastore


@contextmanager
def prepared_by_listener_to_all(url: str, role: str) -> Iterator[SQLAlchemyDatastore]:
    def listener(connection: Any, _: Any) -> None:
        prepare(connection, role)

    sa.event.listen(sa.Engine, "connect", listener)
    try:
        with closing(SQLAlchemyDatastore(url=url)) as datastore:
            yield datastore
    finally:
        sa.event.remove(sa.Engine, "connect", listener)


@contextmanager
def prepared_by_connecting(url: str, role: str) -> Iterator[SQLAlchemyDatastore]:
    with closing(SQLAlchemyDatastore(url=url)) as datastore:

        @sa.event.listens_for(datastore.engine, "do_connect")
        def connect(dialect: sa.Dialect, _: Any, args: Any, kwargs: Any) -> Any:
            return prepare(dialect.connect(*args, **kwargs), role)

        yield datastore


WAYS = (prepared_by_creator, prepared_by_listener, prepared_by_listener_to_all, prepared_by_connecting)
STATE = (
    "SELECT pg_backend_pid(), session_user::text, current_user::text, current_setting('timezone'), "
    "current_setting('work_mem'), current_setting('search_path'), current_setting('statement_timeout')"
)


@pytest.mark.parametrize("construct", WAYS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_settings_of_a_new_connection_survive_transactions(
    postgres_server: Postgres, postgres_database: str, role: str, driver: str, construct: Any
) -> None:
    with construct(postgres_server.url(postgres_database, driver), role) as datastore:

        def look() -> tuple[Any, ...]:
            return tuple(datastore.run(lambda executor: executor.fetch(STATE))[0])

        new = look()
        assert new[1:] == (role, "pg_monitor", "Asia/Tokyo", "5MB", '"it\'s", "\\x"', "71s")
        for statements in (
            ("SELECT 1",),
            ("SET ROLE none", "SET timezone = 'UTC'", "SET work_mem = '1MB'", "SET search_path = ''"),
            ("RESET SESSION AUTHORIZATION",),
        ):
            with datastore.transaction() as session:
                for statement in statements:
                    session.execute(sa.text(statement))
            assert look() == new


@pytest.mark.parametrize("driver", DRIVERS)
def test_encoding_of_the_engine_survives_transactions(
    postgres_server: Postgres, postgres_database: str, driver: str
) -> None:
    url = postgres_server.url(postgres_database, driver)
    with closing(SQLAlchemyDatastore(url=url, client_encoding="LATIN1")) as datastore:
        recorder = SQLAlchemyApplicationRecorder(datastore, events_table_name="encoded")
        recorder.create_table()
        for _ in range(2):
            with datastore.transaction() as session:
                assert session.scalar(sa.text("SHOW client_encoding")) == "LATIN1"
            recorder.insert_events(stored_events(topic="é"))
        assert [row.topic for row in recorder.select_notifications(1, 10)] == ["é", "é"]
        lengths = datastore.run(lambda executor: executor.fetch("SELECT DISTINCT length(topic) FROM encoded"))
        assert [tuple(row) for row in lengths] == [(1,)]


def set_attributes(connection: Any, *, value: bool) -> None:
    if hasattr(connection, "set_session"):
        connection.set_session(readonly=value, deferrable=value)
    else:
        connection.read_only = connection.deferrable = value


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_attributes_that_a_listener_sets_survive_transactions(
    postgres_server: Postgres, postgres_database: str, driver: str
) -> None:
    question = "SELECT current_setting('transaction_read_only'), current_setting('transaction_deferrable')"
    with closing(SQLAlchemyDatastore(url=postgres_server.url(postgres_database, driver))) as datastore:
        sa.event.listen(datastore.engine, "connect", lambda connection, _: set_attributes(connection, value=True))
        for _ in range(3):
            with datastore.transaction() as session:
                assert tuple(session.execute(sa.text(question)).one()) == ("on", "on")
            proxy = datastore.engine.raw_connection()
            set_attributes(proxy.driver_connection, value=False)
            proxy.close()


@pytest.mark.parametrize("database", ["file", "memory"])
def test_listeners_sqlite_settings_survive_transactions(sqlite_url: str, tmp_path: Path, database: str) -> None:
    def prepare_sqlite(connection: Any, _: Any) -> None:
        connection.row_factory = sqlite3.Row
        connection.execute("ATTACH DATABASE ? AS archive", (str(tmp_path / "archive.db"),))
        connection.execute("CREATE TABLE IF NOT EXISTS archive.kept (a)")
        connection.execute("CREATE TEMP TABLE scratch (a)")

    with closing(SQLAlchemyDatastore(url=sqlite_url if database == "file" else "sqlite://")) as datastore:
        sa.event.listen(datastore.engine, "connect", prepare_sqlite)
        for statements in (
            (),
            ("DETACH DATABASE archive",),
            ("ATTACH ':memory:' AS other", "CREATE TEMP TABLE mine (a)"),
        ):
            with datastore.get_connection() as connection:
                raw: Any = connection.connection.dbapi_connection
                assert raw.row_factory is sqlite3.Row
                assert connection.exec_driver_sql("SELECT count(*) FROM archive.kept, scratch").scalar() == 0
                assert not connection.exec_driver_sql("SELECT 1 FROM temp.sqlite_master WHERE name = 'mine'").all()
                connection.rollback()
                for statement in statements:
                    raw.execute(statement)


@pytest.mark.parametrize("is_late", [False, True], ids=["listener first", "connection first"])
def test_foreign_keys_of_sqlite_stay_on(sqlite_url: str, is_late: bool) -> None:
    with closing(SQLAlchemyDatastore(url=sqlite_url)) as datastore:

        def look() -> int:
            return int(datastore.run(lambda executor: executor.fetch("PRAGMA foreign_keys"))[0][0])

        if is_late:
            assert look() == 0
        engine = datastore.engine
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
        if is_late:
            engine.dispose()
        assert look() == 1
        for statement in ("SELECT 1", "COMMIT", "PRAGMA foreign_keys=OFF"):
            with datastore.get_connection() as connection:
                connection.exec_driver_sql(statement)
            assert look() == 1
        with datastore.transaction() as session:
            session.execute(sa.text("SELECT 1"))
        assert look() == 1


def test_encoding_left_by_a_psycopg2_user_does_not_reach_the_next_user(postgres_url: str) -> None:
    with Applications(postgres_url, pool_size=1, max_overflow=0) as apps:
        recorder = apps.recorder()
        with recorder.transaction() as session:
            connection: Any = session.connection().connection.dbapi_connection
            encoding = connection.encoding
            connection.set_client_encoding("LATIN1")
        assert connection.encoding == encoding
        recorder.insert_events(stored_events(topic="é"))
        with recorder.transaction():
            recorder.insert_events(stored_events(topic="Ã©"))
        assert topics(recorder) == ["é", "Ã©"]
        with apps.elsewhere(recorder).transaction() as session:
            table = f'"{recorder.events_table_name}"'
            lengths = session.execute(sa.text(f"SELECT length(topic) FROM {table} ORDER BY id")).scalars().all()
        assert lengths == [1, 2]
