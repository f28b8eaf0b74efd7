"""Tables that are missing, have a wrong shape, or are read-only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import OperationalError, PersistenceError, ProgrammingError, Tracking
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events

CALLS: dict[str, Callable[[SQLAlchemyProcessRecorder], Any]] = {
    "select_events": lambda recorder: recorder.select_events(uuid4()),
    "select_notifications": lambda recorder: recorder.select_notifications(1, 10),
    "max_notification_id": lambda recorder: recorder.max_notification_id(),
    "max_tracking_id": lambda recorder: recorder.max_tracking_id("upstream"),
    "insert_events": lambda recorder: recorder.insert_events(stored_events()),
    "insert a batch": lambda recorder: recorder.insert_events(stored_events(3)),
    "insert with tracking": lambda recorder: recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1)),
    "insert_tracking": lambda recorder: recorder.insert_tracking(Tracking("upstream", 1)),
    "subscribe": lambda recorder: next(recorder.subscribe()),
}
READS = [call for call in CALLS if not call.startswith("insert")]
WRITES = [call for call in CALLS if call.startswith("insert")]


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    """An engine to create tables with."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def run(engine: sa.Engine, *statements: str) -> None:
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def variables(url: str, place: str, **more: str) -> dict[str, str]:
    """Return the settings of an application in a place: a schema, or a prefix on SQLite."""
    where = "SQLALCHEMY_TABLE_PREFIX" if url.startswith("sqlite") else "SQLALCHEMY_SCHEMA"
    return {"SQLALCHEMY_URL": url, where: place, **more}


@pytest.fixture
def no_tables(url: str, place: str) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder whose tables do not exist."""
    factory = SQLAlchemyFactory(Environment("Shop", variables(url, place, CREATE_TABLE="no")))
    recorder = factory.process_recorder()
    assert isinstance(recorder, SQLAlchemyProcessRecorder)
    yield recorder
    factory.close()


# -- missing --


@pytest.mark.parametrize("has_schema", [False, True])
def test_missing_table_is_an_error_with_a_remedy_at_first_use(
    no_tables: SQLAlchemyProcessRecorder, url: str, place: str, engine: sa.Engine, has_schema: bool
) -> None:
    if has_schema and not url.startswith("sqlite"):
        run(engine, f'CREATE SCHEMA "{place}"')
    for call in CALLS.values():
        for _ in range(2):
            with pytest.raises((ProgrammingError, OperationalError), match="CREATE_TABLE=yes") as raised:
                call(no_tables)
            assert f"{place}" in str(raised.value)
            assert "shop_" in str(raised.value)
            assert raised.value.__cause__ is not None
    # Once they are created, the same recorder works.
    factory = SQLAlchemyFactory(Environment("Shop", variables(url, place)))
    factory.process_recorder()
    factory.close()
    assert no_tables.insert_events(stored_events(), tracking=Tracking("upstream", 1)) == [1]


def test_missing_table_in_a_transaction_is_an_error_with_a_remedy(no_tables: SQLAlchemyProcessRecorder) -> None:
    for call in ("select_events", "insert_events", "insert with tracking", "insert_tracking"):
        with (
            pytest.raises((ProgrammingError, OperationalError), match="CREATE_TABLE=yes"),
            no_tables.transaction(),
        ):
            CALLS[call](no_tables)


# -- wrong shapes --

UUID = {"postgresql": "uuid", "sqlite": "BINARY(16)"}
BYTES = {"postgresql": "bytea", "sqlite": "BLOB"}
EVENTS = (
    "id {serial}, originator_id {uuid} NOT NULL, originator_version bigint NOT NULL, topic text NOT NULL, "
    "state {bytes} NOT NULL"
)
TRACKING = "application_name text PRIMARY KEY, notification_id bigint NOT NULL"
INDEX = "CREATE UNIQUE INDEX {index} ON {events} (originator_id, originator_version)"

# What to create before the recorder is constructed, and the error's text.
SHAPES: dict[str, tuple[list[str], str]] = {
    "no id": (
        ["CREATE TABLE {events} (" + EVENTS.replace("id {serial}, ", "", 1) + ")", INDEX],
        "it has no column id",
    ),
    "no topic": (
        ["CREATE TABLE {events} (" + EVENTS.replace("topic text NOT NULL, ", "") + ")", INDEX],
        "no column topic",
    ),
    "state of another type": (
        ["CREATE TABLE {events} (" + EVENTS.replace("state {bytes}", "state text") + ")", INDEX],
        "its column state is of type text",
    ),
    "version of another type": (
        ["CREATE TABLE {events} (" + EVENTS.replace("version bigint", "version text") + ")", INDEX],
        "its column originator_version is of type text",
    ),
    "ids of another type": (
        ["CREATE TABLE {events} (" + EVENTS.replace("{uuid}", "text") + ")", INDEX],
        "its column originator_id is of type text.*|ORIGINATOR_ID_TYPE=uuid",
    ),
    "no unique index": (["CREATE TABLE {events} (" + EVENTS + ")"], "no unique index on originator_id and"),
    "index that is not unique": (
        ["CREATE TABLE {events} (" + EVENTS + ")", INDEX.replace("UNIQUE ", "")],
        "no unique index on originator_id and",
    ),
    "index of a part": (
        ["CREATE TABLE {events} (" + EVENTS + ")", INDEX + " WHERE originator_version > 5"],
        "no unique index on originator_id and",
    ),
    "index of too much": (
        ["CREATE TABLE {events} (" + EVENTS + ")", INDEX.replace("_version)", "_version, topic)")],
        "no unique index on originator_id and",
    ),
    "view": (
        [
            "CREATE TABLE {base} (" + EVENTS + ")",
            INDEX.replace("{events}", "{base}"),
            "CREATE VIEW {events} AS SELECT * FROM {base}",
        ],
        "no unique index on originator_id and",
    ),
    "tracking without a key": (
        ["CREATE TABLE {tracking} (" + TRACKING.replace(" PRIMARY KEY", "") + ")"],
        "no unique index on application_name",
    ),
    "tracking with a row for each position": (
        [
            "CREATE TABLE {tracking} ("
            + TRACKING.replace(" PRIMARY KEY", "")
            + ", PRIMARY KEY (application_name, notification_id))"
        ],
        "no unique index on application_name",
    ),
    "tracking without positions": (
        ["CREATE TABLE {tracking} (" + TRACKING.replace("notification_id", "position") + ")"],
        "it has no column notification_id",
    ),
}


def make(engine: sa.Engine, place: str, statements: list[str]) -> None:
    """Run statements with the names of a place."""
    name = engine.dialect.name
    if name == "sqlite":
        names = {part: f'"{place}shop_{part}"' for part in ("events", "tracking", "base")}
        serial = "INTEGER PRIMARY KEY"
    else:
        run(engine, f'CREATE SCHEMA "{place}"')
        names = {part: f'"{place}".shop_{part}' for part in ("events", "tracking", "base")}
        serial = "bigserial PRIMARY KEY"
    run(
        engine,
        *(
            statement.format(**names, index=f'"{place}idx"', serial=serial, uuid=UUID[name], bytes=BYTES[name])
            for statement in statements
        ),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_table_of_a_wrong_shape_is_refused_and_the_fault_is_named(
    url: str, place: str, engine: sa.Engine, shape: str
) -> None:
    statements, says = SHAPES[shape]
    make(engine, place, statements)
    factory = SQLAlchemyFactory(Environment("Shop", variables(url, place)))
    with pytest.raises(ProgrammingError, match=says) as raised:
        factory.process_recorder()
    factory.close()
    message = str(raised.value)
    assert "exists but cannot be used" in message
    assert ("shop_tracking" if "tracking" in shape else "shop_events") in message
    assert "Set another SQLALCHEMY_SCHEMA or SQLALCHEMY_TABLE_PREFIX" in message


def test_table_with_extra_columns_is_used(url: str, place: str, engine: sa.Engine) -> None:
    more = EVENTS + ", recorded_at timestamp DEFAULT CURRENT_TIMESTAMP"
    make(
        engine,
        place,
        ["CREATE TABLE {events} (" + more + ")", INDEX, "CREATE TABLE {tracking} (" + TRACKING + ")"],
    )
    factory = SQLAlchemyFactory(Environment("Shop", variables(url, place)))
    recorder = factory.process_recorder()
    assert recorder.insert_events(stored_events(2), tracking=Tracking("upstream", 1)) == [1, 2]
    factory.close()


def test_missing_column_is_an_error_at_first_use_where_tables_are_not_checked(
    no_tables: SQLAlchemyProcessRecorder, place: str, engine: sa.Engine
) -> None:
    make(engine, place, SHAPES["no topic"][0])
    for call in ("select_events", "insert_events", "insert a batch"):
        with pytest.raises((ProgrammingError, OperationalError), match="topic") as raised:
            CALLS[call](no_tables)
        assert "shop_events" in str(raised.value)
        assert raised.value.__cause__ is not None


# -- read-only --


def assert_reads_and_refuses_to_write(recorder: SQLAlchemyProcessRecorder) -> None:
    """Expect that a recorder with one event and one position reads, and refuses writes with an error."""
    assert recorder.max_notification_id() == 1
    assert recorder.max_tracking_id("upstream") == 1
    with recorder.subscribe() as subscription:
        assert next(subscription).id == 1
    with recorder.transaction(commit=False):
        assert len(recorder.select_notifications(1, 10)) == 1
    for call in WRITES:
        with pytest.raises(OperationalError, match=r"read-?only") as raised:
            CALLS[call](recorder)
        assert raised.value.__cause__ is not None
    with pytest.raises(OperationalError, match=r"read-?only"), recorder.transaction():
        recorder.insert_events(stored_events())
    assert recorder.max_notification_id() == 1


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_read_only_database_is_read_and_refuses_writes(database: Database, place: str, driver: str) -> None:
    role = f"reader_{place}"
    with Applications(database.url()) as applications:
        applications.recorder("Shop", place).insert_events(stored_events(), tracking=Tracking("upstream", 1))
    run(
        database.engine,
        f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'secret'",
        f"ALTER ROLE {role} SET default_transaction_read_only = on",
    )
    try:
        url = sa.make_url(database.url(driver)).set(username=role, password="secret")  # noqa: S106 (of this test)
        with Applications(url.render_as_string(hide_password=False)) as applications:
            recorder = applications.recorder("Shop", place)
            assert_reads_and_refuses_to_write(recorder)
            with pytest.raises(OperationalError, match="Connect to the primary"):
                recorder.insert_events(stored_events())
            with pytest.raises(OperationalError, match="read-only"):
                applications.recorder("Other", place)
    finally:
        run(database.engine, f"DROP ROLE {role}")


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_read_only_file_is_read_and_refuses_writes(tmp_path: Path, journal_mode: str) -> None:
    path = tmp_path / "shop.db"
    with Applications(f"sqlite:///{path}") as applications:
        recorder = applications.recorder("Shop")
        recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1))
    engine = sa.create_engine(f"sqlite:///{path}")
    run(engine, f"PRAGMA journal_mode={journal_mode}")
    engine.dispose()
    path.chmod(0o444)
    with Applications(f"sqlite:///file:{path}?mode=ro&uri=true") as applications:
        recorder = applications.recorder("Shop")
        assert_reads_and_refuses_to_write(recorder)
        with pytest.raises(PersistenceError, match=r"read-?only"):
            applications.recorder("Other")
