"""Tables that users created, and databases they configured: unsuitable ones are refused, unusual ones work."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, ProgrammingError, Tracking

from tenancy.testing.postgresql import Postgres
from tests.support.applications import Applications, stored_events, topics

UNIQUE = "UNIQUE (originator_id, originator_version)"
SQLITE_TABLE = (
    "CREATE TABLE app_events (id {key}, originator_id BLOB, originator_version BIGINT, topic TEXT, state BLOB, "
)


def test_sqlite_table_without_generated_ids_is_refused() -> None:
    with Applications("sqlite://") as apps:
        factory = apps.factory()
        statement = SQLITE_TABLE.format(key="BIGINT PRIMARY KEY") + UNIQUE + ")"
        factory.datastore.run(lambda executor: executor.fetch(statement))
        with pytest.raises(ProgrammingError, match="not INTEGER PRIMARY KEY"):
            factory.process_recorder()


def test_sqlite_table_with_generated_ids_is_used() -> None:
    with Applications("sqlite://") as apps:
        factory = apps.factory()
        statement = SQLITE_TABLE.format(key="INTEGER PRIMARY KEY") + UNIQUE + ")"
        factory.datastore.run(lambda executor: executor.fetch(statement))
        recorder = factory.process_recorder()
        recorder.insert_events(stored_events(2))
        assert recorder.max_notification_id() == 2


@pytest.mark.parametrize("deferrable", ["DEFERRABLE INITIALLY DEFERRED", "DEFERRABLE INITIALLY IMMEDIATE"])
def test_deferrable_constraint_is_refused(postgres_url: str, deferrable: str) -> None:
    with Applications(postgres_url) as apps:
        datastore = apps.factory(create_table="no").datastore
        statement = (
            "CREATE TABLE app_events (id bigserial PRIMARY KEY, originator_id uuid, originator_version bigint, "
            f"topic text, state bytea, {UNIQUE} {deferrable})"
        )
        datastore.run(lambda executor: executor.fetch(statement))
        with pytest.raises(ProgrammingError, match="unique"):
            apps.recorder()


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_database_that_quotes_all_identifiers_is_used(
    postgres_server: Postgres, postgres_database: str, driver: str
) -> None:
    engine = sa.create_engine(postgres_server.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {postgres_database} SET quote_all_identifiers = on")
    engine.dispose()
    with Applications(postgres_server.url(postgres_database, driver)) as apps:
        for place in (None, "schema ü", None, "schema ü"):  # the second time, they exist
            recorder = apps.recorder(place=place)
            events = stored_events()
            before = recorder.max_notification_id() or 0
            recorder.insert_events(events, tracking=Tracking("upstream", before + 1))
            with pytest.raises(IntegrityError):
                recorder.insert_events(events)
            assert topics(recorder)[-1] == "module:Class"
