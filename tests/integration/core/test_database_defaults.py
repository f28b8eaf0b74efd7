"""Unusual database defaults: encodings, and output formats that drivers cannot read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from typing import Any, Final, cast
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import DataError
from sqlalchemy.pool import NullPool

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tenancy import Tenancy
from tenancy.testing.postgresql import Postgres, fresh_database
from tests.support.applications import stored_events

DRIVERS: Final = ("psycopg2", "psycopg", "pg8000")
DEFAULTS: Final = {
    "DateStyle": "German",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "extra_float_digits": "-15",
    "quote_all_identifiers": "on",
    "search_path": "nowhere",
}
ENCODINGS: Final = ("SQL_ASCII", "LATIN1")


@pytest.fixture(scope="module")
def names(postgres_server: Postgres) -> Iterator[dict[str, str]]:
    """The names of the databases: one with unusual defaults, and one per encoding."""
    engine = sa.create_engine(postgres_server.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with fresh_database(postgres_server) as changed, engine.connect() as connection:
        for name, value in DEFAULTS.items():
            connection.exec_driver_sql(f"ALTER DATABASE {changed} SET {name} TO '{value}'")
        encoded = {encoding: f"{changed}_{encoding.lower()}" for encoding in ENCODINGS}
        for encoding, name in encoded.items():
            connection.exec_driver_sql(
                f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        yield {"defaults": changed, **encoded}
        for name in encoded.values():
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture(params=["defaults", *ENCODINGS])
def url_for(request: pytest.FixtureRequest, postgres_server: Postgres, names: dict[str, str]) -> Callable[[str], str]:
    """Return a function that gives the URL of one of these databases for a driver."""
    return lambda driver: postgres_server.url(names[request.param], driver)


class Größe(Aggregate):  # noqa: PLC2401 (a German word)
    """An aggregate whose topic has non-ASCII letters."""

    def __init__(self, text: str) -> None:
        self.text = text

    @event("Changed")
    def change(self, text: str) -> None:
        self.text = text


class Kennels(Application[UUID]):
    """An application with snapshots."""

    is_snapshotting_enabled = True


@pytest.mark.parametrize("driver", DRIVERS)
def test_application_and_fleet_work_with_all_database_defaults(url_for: Callable[[str], str], driver: str) -> None:
    url = url_for(driver)
    with Tenancy(applications=[Kennels], env={"SQLALCHEMY_URL": url, "SQLALCHEMY_POOL_SIZE": "1"}) as fleet:
        fleet.init()
        tenant = fleet.create(driver, name="Größe")
        kennels = tenant.get(Kennels)
        recorder = cast("SQLAlchemyApplicationRecorder", kennels.recorder)
        size = Größe("naïve \\x 'é'")
        kennels.save(size)
        with recorder.transaction() as session:
            size.change("\\ é \x00\xff\\")
            kennels.save(size)
            assert session.scalar(sa.text("SELECT date '2026-05-04'")) == date(2026, 5, 4)
        kennels.take_snapshot(size.id)
        every_byte = stored_events(state=bytes(range(256)))
        recorder.insert_events(every_byte)
        assert recorder.select_events(every_byte[0].originator_id) == every_byte
        for _ in range(3):  # on a connection that a session has used
            with recorder.transaction() as session:
                now = session.scalar(sa.text("SELECT now()"))
                assert abs(now - datetime.now(UTC)) < timedelta(hours=1)
        assert kennels.repository.get(size.id).text == "\\ é \x00\xff\\"
        assert [row.topic for row in kennels.notification_log.select(1, 10)] == [
            f"{__name__}:Größe.Created",
            f"{__name__}:Größe.Changed",
            every_byte[0].topic,
        ]
    with Tenancy(applications=[Kennels], env={"SQLALCHEMY_URL": url}) as fleet:
        known = fleet[driver]
        assert (known.name, known.created_at) == ("Größe", tenant.created_at)


@pytest.mark.parametrize("driver", DRIVERS)
def test_connections_of_a_creator_use_utf8(postgres_server: Postgres, names: dict[str, str], driver: str) -> None:
    url = sa.make_url(postgres_server.url(names["SQL_ASCII"], driver))
    arguments = url.translate_connect_args(username="user", database="dbname" if driver != "pg8000" else "database")
    connect: Any = import_module(driver).connect if driver != "pg8000" else import_module("pg8000.dbapi").connect
    with closing(SQLAlchemyDatastore(url=url, creator=lambda: connect(**arguments))) as datastore:
        recorder = SQLAlchemyApplicationRecorder(datastore, events_table_name=f"by_creator_{driver}")
        recorder.create_table()
        for _ in range(2):
            with recorder.transaction():
                recorder.insert_events(stored_events(topic="Größe"))
        assert [row.topic for row in recorder.select_notifications(1, 10)] == ["Größe"] * 2


def test_own_engine_on_sql_ascii_works_or_gets_a_remedy(postgres_server: Postgres, names: dict[str, str]) -> None:
    url = postgres_server.url(names["SQL_ASCII"])
    for options in ({}, {"client_encoding": "utf8"}):
        engine = sa.create_engine(url, **options)
        recorder = SQLAlchemyApplicationRecorder(SQLAlchemyDatastore(engine=engine), events_table_name="own_engine")
        recorder.create_table()
        if options:
            assert recorder.insert_events(stored_events(topic="Größe"))
        else:
            with pytest.raises(DataError, match="client_encoding='utf8'"):
                recorder.insert_events(stored_events(topic="Größe"))
        recorder.datastore.close()
        engine.dispose()
