"""Alembic's autogenerate keeps the tables of applications and fleets, and can create them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from eventsourcing.persistence import Tracking

from eventsourcing_sqlalchemy.alembic import compare_type, include_object, metadata_of, render_item
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.recorders import SQLAlchemyAggregateRecorder, SQLAlchemyProcessRecorder
from tenancy import Tenancy
from tenancy.alembic import FleetFilter
from tenancy.testing.postgresql import Postgres
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import SYSTEM
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.applications import stored_events


@pytest.fixture(params=["psycopg2", "psycopg", "pg8000", "sqlite"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.url(request.getfixturevalue("postgres_database"), request.param)


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    """The migrations' engine."""
    engine = sa.create_engine(url)
    yield engine
    engine.dispose()


def own_metadata() -> sa.MetaData:
    """Return a user's metadata, with a table that does not exist yet."""
    metadata = sa.MetaData()
    sa.Table("invoices", metadata, sa.Column("id", sa.Integer, primary_key=True))
    return metadata


def generate(engine: sa.Engine, metadata: Any, **options: Any) -> str:
    """Return the body of ``upgrade()`` in the generated file."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"target_metadata": metadata, "compare_type": compare_type, "render_item": render_item, **options},
        )
        script = produce_migrations(context, metadata)
        assert script.upgrade_ops is not None
        return render_python_code(script.upgrade_ops, render_item=render_item, migration_context=context)


def upgrade(engine: sa.Engine, body: str) -> None:
    """Run that body with the imports of Alembic's template only."""
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)) as op:
        source = "\n".join(line.removeprefix("    ") for line in body.splitlines())
        exec(source, {"op": op, "sa": sa})  # noqa: S102 (as Alembic runs it)


@contextmanager
def recorders(url: str) -> Iterator[list[Any]]:
    """Yield recorders of all kinds of tables."""
    with closing(SQLAlchemyDatastore(url=url)) as datastore:
        yield [
            SQLAlchemyProcessRecorder(datastore, events_table_name="shop_events", tracking_table_name="shop_tracking"),
            SQLAlchemyAggregateRecorder(datastore, events_table_name="shop_snapshots", for_snapshots=True),
        ]


def test_tables_created_by_a_migration_work_and_do_not_differ(url: str, engine: sa.Engine) -> None:
    with recorders(url) as (process, snapshots):
        metadata = metadata_of(process, snapshots)
        body = generate(engine, metadata)
        assert "sqlalchemy_utils" not in body
        upgrade(engine, body)
        for recorder in (process, snapshots):
            recorder.create_table()  # finds no missing table and no fault
            events = stored_events()
            recorder.insert_events(events)
            assert recorder.select_events(events[0].originator_id) == events
        process.insert_tracking(Tracking("upstream", 1))
        assert "op." not in generate(engine, metadata, include_schemas=True)
        assert "op." not in generate(engine, metadata)


def test_tables_of_applications_are_neither_dropped_nor_altered(url: str, engine: sa.Engine) -> None:
    with recorders(url) as made:
        for recorder in made:
            recorder.create_table()
        table = made[0].own_table("totals", sa.Column("id", sa.Integer, primary_key=True))
        with engine.begin() as connection:
            table.create(connection)
        body = generate(engine, own_metadata(), include_object=include_object)
        assert "invoices" in body
        assert "drop_" not in body
        assert "op." not in generate(engine, metadata_of(*made), include_object=include_object)
        assert generate(engine, own_metadata()).count("op.drop_table") == 4  # without the hook


def test_table_of_the_user_is_dropped(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        own_metadata().create_all(connection)
    assert "op.drop_table('invoices')" in generate(engine, sa.MetaData(), include_object=include_object)


@pytest.mark.parametrize("place", [{}, {"TENANCY_TABLE_PREFIX": "{tenant}_{application}_"}], ids=["usual", "prefixes"])
@pytest.mark.parametrize("hooks", ["both", "include_object"])
def test_tables_of_a_fleet_are_not_touched(url: str, engine: sa.Engine, place: dict[str, str], hooks: str) -> None:
    with Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": url, **place}) as tenants:
        tenants.project(TrainingSchool, DogCounters, CountersView)
        with Tenancy(env={"SQLALCHEMY_URL": url, **place}) as unknown:
            for before in (tenants, unknown):
                assert FleetFilter(before).include_name("public", "schema", {})  # there is no registry yet
        tenants.create("acme")
        tenants.suspend(tenants.create("globex").slug)
        fleet = FleetFilter(tenants)
        options: dict[str, Any] = {"include_schemas": True, "include_object": fleet.include_object}
        if hooks == "both":
            options["include_name"] = fleet.include_name
        read = tables_read(engine, options)
        body = generate(engine, own_metadata(), **options)
        assert "invoices" in body
        assert "drop_" not in body
        assert generate(engine, own_metadata(), include_schemas=True).count("op.drop_table") > 12
        # Fleets can have ten thousand tenants, so none of their tables is reflected.
        assert (read == set()) == (hooks == "both")


def tables_read(engine: sa.Engine, options: dict[str, Any]) -> set[str]:
    """Return the names of the tables that Alembic reflects."""
    read = set()
    include: Callable[..., bool] = options["include_object"]

    def spy(obj: Any, name: str, type_: str, reflected: bool, compare_to: Any) -> bool:
        if reflected and type_ == "table":
            read.add(name)
        return include(obj, name, type_, reflected, compare_to)

    generate(engine, own_metadata(), **{**options, "include_object": spy})
    return read


def test_tables_of_an_adopted_tenant_are_kept(url: str, engine: sa.Engine) -> None:
    env = {"SQLALCHEMY_URL": url}
    with Tenancy(system=SYSTEM, env=env) as tenants:
        for cls in tenants.applications.values():
            cls(
                env={**env, "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_TABLE_PREFIX": "old_"}
            ).close()
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE old_view (id integer PRIMARY KEY)")
        tenants.adopt("acme", schema=None if url.startswith("sqlite") else "public", table_prefix="old_")
        fleet = FleetFilter(tenants)
        body = generate(engine, own_metadata(), include_object=fleet.include_object, include_name=fleet.include_name)
        assert "drop_" not in body
