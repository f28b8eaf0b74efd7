"""Migrations of users' tables: each tenant is at exactly one version, in its own place."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import OperationalError, PersistenceError

from eventsourcing_sqlalchemy.migrations import locking
from tenancy import Tenancy
from tenancy.alembic import FleetFilter
from tenancy.errors import TenancyError
from tenancy.model.tenant import Action
from tenancy.operations.jobs import ItemSkipped
from tenancy.operations.migrations.user_migrations import UserMigrations
from tests.integration.tenancy.migrations.conftest import NO_NUMBERS, NUMBERS, PLACES
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import SYSTEM
from tests.support.deadlines import run_together
from tests.support.pgbouncer import PgBouncer
from tests.support.revisions import Item, Revisions, has_table, insert, migrate, own_table, rows


def versions(tenants: Tenancy) -> dict[str, tuple[str, ...]]:
    """Return what the registry has recorded."""
    return {each.slug: each.versions.migrations for each in tenants.fleet.registry.list()}


def true_versions(tenants: Tenancy) -> dict[str, tuple[str, ...]]:
    """Return what the version tables of the tenants say."""
    return {each.slug: tuple(sorted(row[0] for row in rows(tenants, each, "tenant_migrations"))) for each in tenants}


def test_new_tenants_are_at_the_heads(tenants: Tenancy) -> None:
    assert versions(tenants) == true_versions(tenants) == {"acme": ("a1",), "globex": ("a1",)}
    insert(tenants, "acme", "notes", id=1, text="Fido")
    assert (rows(tenants, "acme", "notes"), rows(tenants, "globex", "notes")) == ([(1, "Fido")], [])
    assert tenants["acme"].get(TrainingSchool).register("Fido")
    assert migrate(tenants) == []


def test_a_column_an_index_and_data(tenants: Tenancy, revisions: Revisions) -> None:
    insert(tenants, "acme", "notes", id=1, text="Fido")
    revisions.add("b2", "a1", NUMBERS)
    third = tenants.create("third")
    assert third.versions.migrations == ("b2",)
    assert set(migrate(tenants)) == {tenants["acme"].id, tenants["globex"].id}
    assert rows(tenants, "acme", "notes") == [(1, "Fido", 4)]
    for slug in ("acme", "globex", "third"):
        (index,) = own_table(tenants, slug, "notes").indexes
        assert [column.name for column in index.columns] == ["number"]
    assert versions(tenants) == true_versions(tenants) == dict.fromkeys(["acme", "globex", "third"], ("b2",))
    assert [each.action for each in tenants.history("acme")][-1] == Action.MIGRATE
    assert migrate(tenants) == []


@pytest.mark.parametrize("env", ["schema"], indirect=True)
def test_raw_sql_finds_the_tables_of_the_tenant(tenants: Tenancy, revisions: Revisions) -> None:
    insert(tenants, "acme", "notes", id=1, text="Fido")
    insert(tenants, "globex", "notes", id=2, text="Rex")
    revisions.add("b2", "a1", "op.execute(\"UPDATE notes SET text = text || '!'\")")
    migrate(tenants)
    assert (rows(tenants, "acme", "notes"), rows(tenants, "globex", "notes")) == ([(1, "Fido!")], [(2, "Rex!")])
    with tenants.fleet.shard.datastore.get_connection() as connection:
        assert "acme" not in str(connection.scalar(sa.text("SHOW search_path")))


def test_tables_of_applications_with_prefixes_of_their_own(postgres_url: str, revisions: Revisions) -> None:
    with Tenancy(
        system=SYSTEM, env={"SQLALCHEMY_URL": postgres_url, **PLACES["both"]}, migrations=revisions.path
    ) as tenants:
        revisions.add("b2", "a1", "op.add_column(own_name('trainingschool_events'), sa.Column('more', sa.Integer))")
        tenants.create("acme")
        prefix = tenants["acme"].placement.prefix_of("trainingschool")
        with tenants.fleet.shard.datastore.get_connection() as connection:
            columns = sa.inspect(connection).get_columns(f"{prefix}trainingschool_events", schema="fleet")
        assert "more" in {column["name"] for column in columns}
        assert tenants["acme"].get(TrainingSchool).register("Fido")


def test_a_schema_for_each_application_is_refused(postgres_url: str, revisions: Revisions) -> None:
    env = {"SQLALCHEMY_URL": postgres_url, "TENANCY_SCHEMA": "{tenant}_{application}"}
    with Tenancy(system=SYSTEM, env=env, migrations=revisions.path) as tenants:
        with pytest.raises(TenancyError, match="schema for each application"):
            tenants.create("acme")
        assert not any(each.status == "active" for each in tenants)


CONCURRENTLY = """
op.create_index(own_name("ix_text"), own_name("notes"), ["text"], postgresql_concurrently=True{more})
"""


@pytest.mark.parametrize("env", ["schema", "prefix"], indirect=True)
def test_a_statement_that_cannot_run_in_a_transaction_is_refused(tenants: Tenancy, revisions: Revisions) -> None:
    for body, error in (
        (CONCURRENTLY.format(more=""), "CREATE INDEX CONCURRENTLY"),
        (f"with op.get_context().autocommit_block():\n    {CONCURRENTLY.format(more='').strip()}", "autocommit_block"),
    ):
        revisions.add("b2", "a1", body)
        with pytest.raises(TenancyError, match=f"(?s){error}.*if_not_exists"):
            migrate(tenants, "acme")
        assert versions(tenants) == true_versions(tenants) == {"acme": ("a1",), "globex": ("a1",)}
    output = StringIO()
    tenants.fleet.migrator.write_sql(tenants["acme"], output)
    assert "COMMIT;" in output.getvalue().partition("CONCURRENTLY")[0]


@pytest.mark.parametrize("env", ["schema", "prefix"], indirect=True)
def test_an_index_that_was_created_before_is_found(tenants: Tenancy, revisions: Revisions) -> None:
    """The remedy that the error names."""
    table = own_table(tenants, "acme", "notes")
    index = sa.Index(f"{table.name.removesuffix('notes')}ix_text", table.c.text, postgresql_concurrently=True)
    engine = tenants.fleet.shard.datastore.engine
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        index.create(connection)
    revisions.add(
        "b2", "a1", CONCURRENTLY.format(more=", if_not_exists=True").replace("concurrently=True", "using='btree'")
    )
    migrate(tenants)
    assert versions(tenants) == true_versions(tenants) == {"acme": ("b2",), "globex": ("b2",)}
    assert [len(own_table(tenants, slug, "notes").indexes) for slug in ("acme", "globex")] == [1, 1]


def test_one_transaction_for_all_revisions(tenants: Tenancy, revisions: Revisions) -> None:
    insert(tenants, "acme", "notes", id=1, text="poison")
    revisions.add("b2", "a1", NUMBERS)
    revisions.add(
        "c3",
        "b2",
        "op.execute(f\"INSERT INTO {own_name('notes')} (id, text) SELECT id, text FROM {own_name('notes')}\")",
    )
    with pytest.raises(PersistenceError):
        migrate(tenants, "acme")
    assert migrate(tenants, "globex")
    assert versions(tenants) == true_versions(tenants) == {"acme": ("a1",), "globex": ("c3",)}
    assert rows(tenants, "acme", "notes") == [(1, "poison")]
    assert not own_table(tenants, "acme", "notes").indexes


def test_an_error_in_python_leaves_nothing_behind(tenants: Tenancy, revisions: Revisions) -> None:
    revisions.add("b2", "a1", f"{NUMBERS}\nraise LookupError('no such dog')")
    with pytest.raises(LookupError):
        migrate(tenants, "acme")
    assert versions(tenants)["acme"] == true_versions(tenants)["acme"] == ("a1",)
    assert set(own_table(tenants, "acme", "notes").c.keys()) == {"id", "text"}
    with pytest.raises(LookupError):
        tenants.create("third")
    revisions.add("b2", "a1", NUMBERS)
    assert tenants.complete(tenants["third"]).versions.migrations == ("b2",)


def test_a_migration_that_was_not_recorded_is_not_repeated(tenants: Tenancy, revisions: Revisions) -> None:
    """A process died after the commit of the tenant and before that of the registry."""
    if tenants.fleet.shard.is_file_of_registry:
        pytest.skip("one transaction for both")
    revisions.add("b2", "a1", "op.execute(f\"INSERT INTO {own_name('notes')} (id, text) VALUES (7, 'once')\")")
    tenant = tenants["acme"]
    with suppress(KeyboardInterrupt), tenants.fleet.registry.locked([tenant.id]) as (session, _):
        tenants.fleet.migrator.migrate(tenant, session)
        raise KeyboardInterrupt
    assert (versions(tenants)["acme"], true_versions(tenants)["acme"]) == (("a1",), ("b2",))
    assert migrate(tenants, "acme")
    assert versions(tenants)["acme"] == ("b2",)
    assert rows(tenants, "acme", "notes") == [(7, "once")]


def test_a_purged_tenant_is_skipped(tenants: Tenancy, revisions: Revisions) -> None:
    revisions.add("b2", "a1", NUMBERS)
    tenant = tenants["acme"]
    tenants.purge("acme")
    with pytest.raises(ItemSkipped):
        UserMigrations(tenants.fleet, lock_timeout=1.0).apply(tenant, Item())


def test_downgrade(tenants: Tenancy, revisions: Revisions) -> None:
    revisions.add("b2", "a1", NUMBERS, NO_NUMBERS)
    migrate(tenants)
    insert(tenants, "acme", "notes", id=1, text="Fido")
    assert len(migrate(tenants, target="a1")) == 2
    assert versions(tenants) == true_versions(tenants) == {"acme": ("a1",), "globex": ("a1",)}
    assert rows(tenants, "acme", "notes") == [(1, "Fido")]
    assert migrate(tenants, target="a1") == []
    assert len(migrate(tenants, target="base")) == 2
    assert not has_table(tenants, "acme", "notes")
    assert versions(tenants) == {"acme": (), "globex": ()}
    assert len(migrate(tenants, target="a1")) == 2
    assert versions(tenants)["acme"] == ("a1",)


def test_branches(tenants: Tenancy, revisions: Revisions) -> None:
    other = 'op.create_table(own_name("bills"), sa.Column("id", sa.Integer, primary_key=True))'
    revisions.add("x1", None, other, 'op.drop_table(own_name("bills"))', depends_on="b2")
    revisions.add("b2", "a1", NUMBERS, NO_NUMBERS)
    migrate(tenants)
    assert versions(tenants)["acme"] == true_versions(tenants)["acme"] == ("x1",)  # it depends on the other
    assert has_table(tenants, "globex", "bills")
    assert tenants.create("third").versions.migrations == ("x1",)
    revisions.add("c3", "b2", 'op.add_column(own_name("notes"), sa.Column("more", sa.Integer))')
    migrate(tenants)
    assert set(versions(tenants).values()) == {("c3", "x1")}
    assert migrate(tenants) == []


def test_newer_tenants_are_left_alone(tenants: Tenancy, revisions: Revisions) -> None:
    revisions.add("b2", "a1", NUMBERS)
    migrate(tenants)
    revisions.remove("b2")
    assert migrate(tenants) == []
    part = UserMigrations(tenants.fleet, lock_timeout=1.0)
    with pytest.raises(TenancyError, match="this code lacks"):
        part.apply(tenants["acme"], Item())


def test_an_adopted_tenant_is_migrated_on_request(env: dict[str, str], revisions: Revisions) -> None:
    place = {"SQLALCHEMY_TABLE_PREFIX": "old_"}
    for cls in (SYSTEM.get_app_cls(name) for name in SYSTEM.nodes):
        cls(env={**env, **place, "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy"}).close()
    with Tenancy(system=SYSTEM, env=env, migrations=revisions.path) as tenants:
        schema = tenants.fleet.shard.default_schema
        assert tenants.adopt("acme", schema=schema, table_prefix="old_").versions.migrations == ()
        assert len(migrate(tenants)) == 1
        assert versions(tenants) == true_versions(tenants) == {"acme": ("a1",)}
        assert has_table(tenants, "acme", "notes")
        hooks = FleetFilter(tenants)
        for name in ("notes", "tenant_migrations", "tenant_migrations_created"):
            table = sa.Table(f"old_{name}", sa.MetaData(), schema=schema)
            assert not hooks.include_object(table, table.name, "table", True, None)


@pytest.mark.parametrize("env", ["schema", "prefix"], indirect=True)
def test_a_long_reader_is_waited_for_in_short_attempts(
    tenants: Tenancy, revisions: Revisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_FIRST_PAUSE", 0.0)
    revisions.add("b2", "a1", NUMBERS)
    reader = tenants.fleet.shard.datastore.engine.connect()
    reader.execute(sa.select(own_table(tenants, "acme", "notes")))

    class LeavingAtTheThird(Item):
        def check(self) -> None:
            super().check()
            if self.checks == 3:
                # Writers go on between the attempts.
                insert(tenants, "acme", "notes", id=1, text="Fido")
                reader.close()

    item = LeavingAtTheThird()
    UserMigrations(tenants.fleet, lock_timeout=0.2).apply(tenants["acme"], item)
    assert item.checks == 3
    assert rows(tenants, "acme", "notes") == [(1, "Fido", 4)]


@pytest.mark.parametrize("env", ["schema"], indirect=True)
def test_a_reader_that_does_not_leave_ends_the_attempts(
    tenants: Tenancy, revisions: Revisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_FIRST_PAUSE", 0.0)
    revisions.add("b2", "a1", NUMBERS)
    item = Item()
    with tenants.fleet.shard.datastore.engine.connect() as reader:
        reader.execute(sa.select(own_table(tenants, "acme", "notes")))
        with pytest.raises(OperationalError):
            UserMigrations(tenants.fleet, lock_timeout=0.05).apply(tenants["acme"], item)
    assert item.checks == locking._ATTEMPTS  # noqa: SLF001 (the bound)
    assert versions(tenants)["acme"] == true_versions(tenants)["acme"] == ("a1",)


@pytest.mark.parametrize("env", ["schema", "prefix"], indirect=True)
def test_a_lost_connection_is_tried_again(
    tenants: Tenancy, revisions: Revisions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(locking, "_FIRST_PAUSE", 0.0)
    flag = tmp_path / "lost"
    revisions.add(
        "b2",
        "a1",
        f"""
        from pathlib import Path
        op.execute(f"INSERT INTO {{own_name('notes')}} (id, text) VALUES (7, 'once')")
        flag = Path({str(flag)!r})
        if not flag.exists():
            flag.touch()
            op.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        """,
    )
    item = Item()
    UserMigrations(tenants.fleet, lock_timeout=5.0).apply(tenants["acme"], item)
    assert item.checks == 2
    assert rows(tenants, "acme", "notes") == [(7, "once")]
    assert versions(tenants)["acme"] == ("b2",)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
@pytest.mark.parametrize("place", ["schema", "prefix"])
def test_behind_a_transaction_pooler(
    pgbouncer: PgBouncer, postgres_database: str, revisions: Revisions, driver: str, place: str
) -> None:
    env = {"SQLALCHEMY_URL": pgbouncer.url(postgres_database, driver), **PLACES[place]}
    revisions.add("b2", "a1", NUMBERS)
    with Tenancy(system=SYSTEM, env=env, migrations=revisions.path) as tenants:
        slugs = [f"tenant{number}" for number in range(4)]
        run_together([partial(tenants.create, slug) for slug in slugs])
        revisions.add(
            "c3",
            "b2",
            "op.execute(sa.text(f\"INSERT INTO {own_name('notes')} (id, text) VALUES (:id, 'x')\").bindparams(id=1))",
        )
        run_together([partial(migrate, tenants, slug) for slug in slugs])
        for slug in slugs:
            assert rows(tenants, slug, "notes") == [(1, "x", None)]
        with tenants.fleet.shard.datastore.get_connection() as connection:
            assert connection.scalar(sa.text("SHOW search_path")) == '"$user", public'
            assert connection.scalar(sa.text("SHOW lock_timeout")) == "0"


def test_creation_while_others_are_migrated(tenants: Tenancy, revisions: Revisions) -> None:
    revisions.add("b2", "a1", NUMBERS)
    with Tenancy(system=SYSTEM, env=dict(tenants.settings.given), migrations=revisions.path) as others:
        calls: list[Callable[[], object]] = [partial(others.create, f"new{number}") for number in range(20)]
        calls.append(partial(migrate, tenants))
        run_together(calls)
    migrate(tenants)  # nothing is left behind, whichever came first
    assert set(versions(tenants).values()) == set(true_versions(tenants).values()) == {("b2",)}
    assert len(versions(tenants)) == 22


def test_offline_sql_does_the_same(postgres_url: str, revisions: Revisions) -> None:
    for place in ("schema", "prefix"):
        env = {"SQLALCHEMY_URL": postgres_url, "TENANCY_CONTROL_SCHEMA": f"control_{place}", **PLACES[place]}
        with Tenancy(system=SYSTEM, env=env, migrations=revisions.path) as tenants:
            tenants.create("acme")
            insert(tenants, "acme", "notes", id=1, text="Fido")
            revisions.add("b2", "a1", NUMBERS)
            output = io.StringIO()
            tenants.fleet.migrator.write_sql(tenants["acme"], output)
            assert versions(tenants)["acme"] == true_versions(tenants)["acme"] == ("a1",)
            with tenants.fleet.shard.datastore.engine.connect() as connection:
                script = output.getvalue().replace("BEGIN;", "").replace("COMMIT;", "")
                connection.exec_driver_sql(script)
                connection.commit()
            assert rows(tenants, "acme", "notes") == [(1, "Fido", 4)]
            assert migrate(tenants)  # records what is true
            assert versions(tenants)["acme"] == ("b2",)
        revisions.remove("b2")


def test_the_fleets_own_alembic_drops_nothing(tenants: Tenancy) -> None:
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 (as env.py does)
    from alembic.migration import MigrationContext  # noqa: PLC0415 (as above)

    hooks = FleetFilter(tenants)
    with tenants.fleet.shard.datastore.get_connection() as connection:
        options = {"include_schemas": True, "include_object": hooks.include_object, "include_name": hooks.include_name}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), sa.MetaData()) == []
        del options["include_name"]
        assert compare_metadata(MigrationContext.configure(connection, opts=options), sa.MetaData()) == []


def test_migrations_are_set_up_before_they_are_used(env: dict[str, str], tmp_path: Path) -> None:
    with (
        Tenancy(system=SYSTEM, env=env, migrations=tmp_path / "nowhere") as tenants,
        pytest.raises(OSError, match="tenancy migrations init"),
    ):
        tenants.create("acme")
    with Tenancy(system=SYSTEM, env=env) as tenants:
        assert tenants.complete(tenants["acme"]).versions.migrations == ()
        assert not UserMigrations(tenants.fleet, lock_timeout=1.0).is_behind(tenants["acme"])
