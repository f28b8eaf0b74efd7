"""What users have set on every new connection outlives transactions, and what one has left behind does not."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from typing import Any

import pytest
import sqlalchemy as sa

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from tenancy.demo.server import Postgres
from tests.applications import Applications, stored_events, topics


@pytest.fixture
def role(postgres_server: Postgres) -> Iterator[str]:
    """A role of the server, for this test."""
    name = f"role_{secrets.token_hex(6)}"
    engine = sa.create_engine(postgres_server.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name}")
        yield name
        connection.exec_driver_sql(f"DROP ROLE {name}")
    engine.dispose()


def prepare(connection: Any, role: str) -> Any:
    cursor = connection.cursor()
    cursor.execute(f"SET ROLE {role}")
    cursor.execute("SET timezone = 'Asia/Tokyo'")
    cursor.close()
    connection.commit()
    return connection


def prepared_by_creator(url: str, role: str) -> SQLAlchemyDatastore:
    parsed = sa.make_url(url)
    driver = import_module(parsed.get_driver_name())
    arguments = parsed.translate_connect_args(username="user", database="dbname")
    return SQLAlchemyDatastore(url=url, creator=lambda: prepare(driver.connect(**arguments), role))


def prepared_by_listener(url: str, role: str) -> SQLAlchemyDatastore:
    datastore = SQLAlchemyDatastore(url=url)
    sa.event.listen(datastore.engine, "connect", lambda connection, _: prepare(connection, role))
    return datastore


@pytest.mark.parametrize("construct", [prepared_by_creator, prepared_by_listener])
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_role_and_time_zone_of_a_new_connection_survive_a_transaction(
    postgres_server: Postgres, postgres_database: str, role: str, driver: str, construct: Any
) -> None:
    with closing(construct(postgres_server.url(postgres_database, driver), role)) as datastore:

        def look() -> tuple[Any, ...]:
            question = "SELECT current_user, current_setting('timezone'), pg_backend_pid()"
            return tuple(datastore.run(lambda executor: executor.fetch(question))[0])

        new = look()
        assert new[:2] == (role, "Asia/Tokyo")
        with datastore.transaction() as session:
            session.execute(sa.text("SELECT 1"))
        assert look() == new
        with datastore.transaction() as session:
            session.execute(sa.text("SET ROLE none"))
            session.execute(sa.text("SET timezone = 'UTC'"))
        assert look() == new


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


def test_encoding_that_a_user_of_psycopg2_has_left_reaches_nobody_else(postgres_url: str) -> None:
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
