"""Tables of earlier versions are migrated: they equal new ones, and keep their rows, ids and sequences."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError, Tracking

from eventsourcing_sqlalchemy import migrations
from eventsourcing_sqlalchemy.recorders import SQLAlchemyAggregateRecorder, SQLAlchemyProcessRecorder
from eventsourcing_sqlalchemy.tables import TableSpec
from tenancy.testing.postgresql import Postgres
from tests.support.applications import Applications, stored_events, topics
from tests.support.full_catalog import full_catalog
from tests.support.published_tables import COLUMNS, PublishedTables

LONG_NAME = "x" * 33
Place = tuple[str, str | None]


@pytest.fixture(params=["sqlite", "psycopg2", "psycopg in a schema", "pg8000"])
def place(request: pytest.FixtureRequest) -> Place:
    """The URL of a database without tables, and a schema."""
    driver, _, schema = request.param.partition(" in a ")
    if driver == "sqlite":
        return request.getfixturevalue("sqlite_url"), None
    server: Postgres = request.getfixturevalue("postgres_server")
    name: str = request.getfixturevalue("postgres_database")
    return server.url(name, driver), 'Größe\'s "1" %s-x' if schema else None


@pytest.fixture
def old(place: Place) -> Iterator[PublishedTables]:
    """Tables of version 0."""
    tables = PublishedTables(*place)
    yield tables
    tables.close()


@pytest.fixture
def apps(place: Place) -> Iterator[Applications]:
    """Applications in the database."""
    with Applications(place[0]) as applications:
        yield applications


def recorders(apps: Applications, schema: str | None) -> tuple[SQLAlchemyProcessRecorder, SQLAlchemyAggregateRecorder]:
    """Return recorders of all of an application's tables."""
    factory = apps.factory("School", schema)
    snapshots = factory.aggregate_recorder("snapshots")
    process = factory.process_recorder()
    assert isinstance(snapshots, SQLAlchemyAggregateRecorder)
    assert isinstance(process, SQLAlchemyProcessRecorder)
    return process, snapshots


def versions(recorder: SQLAlchemyAggregateRecorder) -> list[int]:
    """Return the version of each table."""
    dialect = recorder.datastore.dialect
    shapes = recorder.datastore.run(lambda executor: dialect.describe(executor, [s.name for s in recorder.tables]))
    return [migrations.version_of([spec], shapes) for spec in recorder.tables]


def kinds(changed: list[TableSpec]) -> list[str]:
    return sorted(spec.kind for spec in changed)


def test_migrated_tables_equal_new_ones(place: Place, old: PublishedTables, apps: Applications) -> None:
    """Seen to fail without each of the steps, and without the index of the rebuilt table."""
    url, schema = place
    process, snapshots = recorders(apps, schema)
    assert 0 in versions(process)
    is_sqlite = not old.prefix
    assert kinds(process.migrate_tables()) == (["events", "tracking"] if is_sqlite else ["tracking"])
    assert snapshots.migrate_tables() == []
    migrated = full_catalog(url, schema)
    assert set(versions(process)) == {migrations.HEAD}

    for spec in (*process.tables, *snapshots.tables):
        old.execute(f"DROP TABLE {spec.name}")
    recorders(apps, schema)
    fresh = full_catalog(url, schema)
    assert fresh == migrated
    assert all(fresh[what] for what in ("columns", "indexes"))


def test_rows_ids_and_sequences_survive(place: Place, old: PublishedTables, apps: Applications) -> None:
    process, snapshots = recorders(apps, place[1])
    process.insert_events(stored_events(3, old.originator_id, first_version=3, topic="kept", state=b"\0\1"))
    before = process.select_notifications(None, 10)
    process.migrate_tables()
    assert process.select_notifications(None, 10) == before
    assert [event.originator_version for event in snapshots.select_events(old.originator_id)] == [2]
    assert process.max_tracking_id("upstream") == 7

    process.insert_tracking(Tracking(LONG_NAME, 1))
    old.execute(f"DELETE FROM {old.prefix}school_events WHERE id = 5")
    # The database generates no id again, and neither does a process that starts now.
    (again,) = recorders(apps, place[1])[0].insert_events(stored_events()) or ()
    assert again == 6
    assert process.max_tracking_id(LONG_NAME) == 1
    assert topics(process) == ["old", "old", "kept", "kept", "module:Class"]


@pytest.mark.usefixtures("old")
def test_current_tables_stay_as_they_are(place: Place, apps: Applications) -> None:
    process, _ = recorders(apps, place[1])
    process.migrate_tables()
    migrated = full_catalog(*place)
    assert process.migrate_tables() == []
    assert full_catalog(*place) == migrated


def test_missing_tables_are_not_created(apps: Applications) -> None:
    recorder = apps.recorder("School", create_table="no")
    assert recorder.migrate_tables() == []
    with pytest.raises(ProgrammingError):
        recorder.max_notification_id()


@pytest.mark.usefixtures("old")
def test_tables_are_migrated_beside_a_scoped_session(place: Place) -> None:
    url, schema = place
    engine = sa.create_engine(url)
    with Applications(url) as apps:
        process, _ = recorders(apps, schema)
        session = sa.orm.scoped_session(sa.orm.sessionmaker(engine))
        process.datastore.set_scoped_session(session)
        assert "tracking" in kinds(process.migrate_tables())
        session.remove()
    engine.dispose()


def test_failure_in_the_middle_of_a_step_changes_nothing(
    place: Place, old: PublishedTables, apps: Applications, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement of the step fails in turn; after the last one, the tables are at the head."""
    process, _ = recorders(apps, place[1])
    before = full_catalog(*place)
    rows = process.select_notifications(None, 10)
    dialect = process.datastore.dialect
    left = allowed = 0
    run = type(dialect).execute_once

    def fail(self: object, cursor: object, statement: str, parameters: object) -> None:
        nonlocal left
        if statement.lstrip().startswith(("CREATE", "DROP", "ALTER", "INSERT")):
            left -= 1
            if left < 0:
                statement = "SELECT x FROM missing"
        run(self, cursor, statement, parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(type(dialect), "execute_once", fail)
    while True:
        left = allowed
        try:
            process.migrate_tables()
        except ProgrammingError:
            allowed += 1
            assert full_catalog(*place) == before
            assert process.select_notifications(None, 10) == rows
        else:
            break
    assert allowed == (1 if old.prefix else 12)
    assert set(versions(process)) == {migrations.HEAD}


# -- tables that users have changed --


@pytest.fixture
def old_file(sqlite_url: str) -> Iterator[PublishedTables]:
    """Tables of version 0 in a file."""
    tables = PublishedTables(sqlite_url, None)
    yield tables
    tables.close()


def test_columns_indexes_triggers_and_views_of_users_survive_a_rebuild(
    sqlite_url: str, old_file: PublishedTables
) -> None:
    old_file.execute("ALTER TABLE school_events ADD COLUMN \"o'n\" TEXT NOT NULL DEFAULT 'x''y'")
    old_file.execute("CREATE INDEX topics ON school_events (topic)")
    old_file.execute("CREATE TABLE counted (number INTEGER)")
    old_file.execute(
        "CREATE TRIGGER counting AFTER INSERT ON school_events BEGIN INSERT INTO counted VALUES (new.id); END"
    )
    old_file.execute("CREATE VIEW latest AS SELECT max(id) AS id FROM school_events")
    old_file.execute(f"INSERT INTO school_events {COLUMNS} VALUES (x'00112233445566778899aabbccddeeff', 1, 'more', '')")
    old_file.execute("""UPDATE school_events SET "o'n" = 'z' WHERE topic = 'more'""")
    with Applications(sqlite_url) as apps:
        recorder = apps.recorder("School")
        recorder.migrate_tables()
        assert recorder.insert_events(stored_events()) == [4]
    assert old_file.rows("""SELECT "o'n" FROM school_events ORDER BY id""") == [("x'y",), ("x'y",), ("z",), ("x'y",)]
    assert old_file.rows("SELECT number FROM counted") == [(3,), (4,)], "the trigger ran for new events alone"
    assert old_file.rows("SELECT id FROM latest") == [(4,)]
    found = full_catalog(sqlite_url, None)
    assert {row[1] for row in found["indexes"]} >= {"topics", "school_events_aggregate_idx"}
    assert len(found["triggers"]) == 1


def test_unique_constraint_becomes_the_index(sqlite_url: str) -> None:
    engine = sa.create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE school_events (id INTEGER PRIMARY KEY, originator_id BINARY(16), originator_version BIGINT, "
            "topic TEXT, state BLOB, UNIQUE (originator_id, originator_version))"
        )
    engine.dispose()
    with Applications(sqlite_url) as apps:
        recorder = apps.recorder("School")
        recorder.migrate_tables()
    assert "school_events_aggregate_idx" in {row[1] for row in full_catalog(sqlite_url, None)["indexes"]}


@pytest.mark.parametrize("definition", ["topic TEXT CHECK (topic <> '')", "topic TEXT COLLATE NOCASE"])
def test_table_that_would_lose_a_constraint_is_refused(sqlite_url: str, definition: str) -> None:
    engine = sa.create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE school_events (id INTEGER PRIMARY KEY, originator_id BINARY(16), originator_version BIGINT, "
            f"{definition}, state BLOB, UNIQUE (originator_id, originator_version))"
        )
    engine.dispose()
    before = full_catalog(sqlite_url, None)
    with Applications(sqlite_url) as apps:
        recorder = apps.recorder("School", create_table="no")
        with pytest.raises(ProgrammingError, match="cannot be rebuilt"):
            recorder.migrate_tables()
    assert full_catalog(sqlite_url, None) == before
