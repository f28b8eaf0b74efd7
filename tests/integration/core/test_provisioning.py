"""Create the tables of many applications together: each set completely or not at all, despite concurrent creation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError, Tracking

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.provisioning import create_many
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from eventsourcing_sqlalchemy.tables import TableSpec
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events
from tests.support.deadlines import run_together
from tests.support.wiretap import Wiretap

MANY = 25  # with two tables each: two transactions


@pytest.fixture
def apps(url: str) -> Iterator[Applications]:
    """Applications that create no tables."""
    with Applications(url, create_table="no") as apps:
        yield apps


def recorders(apps: Applications, place: str, count: int = MANY) -> list[SQLAlchemyProcessRecorder]:
    return [apps.recorder("Shop", f"{place}{number}_") for number in range(count)]


def all_tables(recorders: Sequence[SQLAlchemyProcessRecorder]) -> list[TableSpec]:
    return [spec for recorder in recorders for spec in recorder.tables]


def serves(recorder: SQLAlchemyProcessRecorder) -> bool:
    return recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1)) == [1]


def have_tables(recorders: Sequence[SQLAlchemyProcessRecorder]) -> list[bool]:
    inspector = sa.inspect(recorders[0].datastore.engine)
    return [
        all(inspector.has_table(spec.name.name, schema=spec.name.schema) for spec in recorder.tables)
        for recorder in recorders
    ]


def run(recorder: SQLAlchemyProcessRecorder, statement: str) -> None:
    with recorder.datastore.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_missing_tables_are_created_and_work(apps: Applications, place: str) -> None:
    found = recorders(apps, place)
    specs = all_tables(found)
    datastore = found[0].datastore
    assert create_many(datastore, specs[: 2 * 3 + 1]) == specs[: 2 * 3 + 1]
    assert create_many(datastore, [*specs, *specs]) == specs[2 * 3 + 1 :]
    assert create_many(datastore, iter(specs)) == []
    assert create_many(datastore, []) == []
    assert all(serves(recorder) for recorder in found)
    found[0].create_table()  # finds no fault


def test_tables_of_many_applications_in_one_place_are_created(apps: Applications, place: str) -> None:
    """Too many for one transaction, in one schema."""
    found = [apps.recorder(f"Shop{number}", place) for number in range(MANY)]
    specs = all_tables(found)
    assert create_many(found[0].datastore, specs) == specs
    assert all(serves(recorder) for recorder in found)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_round_trips_are_few(database: Database, place: str, driver: str) -> None:
    with Wiretap(database.url(driver)) as wire, Applications(wire.url, create_table="no") as apps:
        found = recorders(apps, place, 15)
        specs = all_tables(found)
        assert found[0].datastore.default_schema() == "public"  # connects first
        wire.reset()
        create_many(found[0].datastore, specs)
        # Queries of existing tables and of schemas, the creation, and the final check.
        assert wire.round_trips <= 4


def test_concurrent_creation_in_threads_and_processes(database: Database, place: str) -> None:
    with Applications(database.url(), create_table="no") as one, Applications(database.url("psycopg")) as other:
        found = recorders(one, place, 12)
        specs = all_tables(found)
        with (
            closing(SQLAlchemyDatastore(url=database.url(), echo=False)) as second,
            closing(SQLAlchemyDatastore(url=database.url("psycopg"), echo=False)) as third,
        ):
            calls: list[Callable[[], object]] = []
            for seed, datastore in enumerate((found[0].datastore, second, third) * 2):
                mine = list(specs)
                random.Random(seed).shuffle(mine)  # noqa: S311 (chance for tests)
                calls.append(partial(create_many, datastore, mine))
            calls += [partial(other.recorder, "Shop", f"{place}{number}_") for number in range(3)]
            run_together(calls, 60)
        assert all(serves(recorder) for recorder in found)


def test_creation_stops_at_a_table_of_another_shape(apps: Applications, place: str) -> None:
    found = recorders(apps, place, 5)
    specs = all_tables(found)
    datastore = found[0].datastore
    create_many(datastore, found[2].tables)
    events = next(spec.name for spec in found[2].tables if spec.kind == "events")
    run(found[2], f"ALTER TABLE {events} RENAME COLUMN topic TO subject")
    with pytest.raises(ProgrammingError, match=r"cannot be used for events.*no column topic") as raised:
        create_many(datastore, specs)
    assert str(events) in str(raised.value)
    # SQLite has no schemas, so all tables belong together.
    before = found[:2] if datastore.dialect.has_schemas else []
    assert have_tables(found) == [recorder in (*before, found[2]) for recorder in found]
    run(found[2], f"ALTER TABLE {events} RENAME COLUMN subject TO topic")
    assert create_many(datastore, specs) == [spec for spec in specs if spec not in all_tables([*before, found[2]])]
    assert all(serves(recorder) for recorder in found)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_tables_of_a_schema_are_created_together_or_not_at_all(database: Database, place: str, driver: str) -> None:
    with Applications(database.url(driver), create_table="no") as apps:
        found = recorders(apps, place, 5)
        schema = found[2].tables[0].name.schema
        run(found[2], f'CREATE SCHEMA "{schema}"')
        # A type occupies the name of its last table.
        run(found[2], f"CREATE TYPE {found[2].tables[-1].name} AS ENUM ('taken')")
        with pytest.raises(ProgrammingError, match="already exists"):
            create_many(found[0].datastore, all_tables(found))
        assert have_tables(found) == [True, True, False, False, False]
        assert sa.inspect(found[2].datastore.engine).get_table_names(schema=schema) == []
        run(found[2], f"DROP TYPE {found[2].tables[-1].name}")
        assert create_many(found[0].datastore, all_tables(found)) == all_tables(found[2:])
        assert all(serves(recorder) for recorder in found)


def test_scoped_session_is_neither_used_nor_committed(database: Database, place: str) -> None:
    engine = sa.create_engine(database.url())
    session = sa.orm.scoped_session(sa.orm.sessionmaker(bind=engine))
    datastore = SQLAlchemyDatastore(session=session)
    found = [
        SQLAlchemyProcessRecorder(
            datastore,
            events_table_name="shop_events",
            tracking_table_name="shop_tracking",
            schema_name=f"{place}{number}",
        )
        for number in range(3)
    ]
    assert create_many(datastore, all_tables(found)) == all_tables(found)
    assert not session().in_transaction()
    assert have_tables(found) == [True] * 3
    session.remove()
    engine.dispose()
