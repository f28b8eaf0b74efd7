"""The purge of an adopted tenant removes what its migrations have created, and nothing that existed before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tenancy import Tenancy
from tenancy.lifecycle.purging import PurgeCertificate
from tests.samples.training_school.system import SYSTEM
from tests.support.revisions import Revisions, has_table, insert, migrate, rows

pytestmark = pytest.mark.usefixtures("no_purge_delay")

# A placement for each database: a shared schema, a prefix in one, and a prefix without schemas.
PLACES = {"sqlite": ("", "old_"), "schema": ("old", ""), "prefix": ("", "old_")}


@pytest.fixture(params=list(PLACES))
def where(request: pytest.FixtureRequest) -> str:
    """The name of a placement."""
    name: str = request.param
    return name


@pytest.fixture
def place(where: str) -> tuple[str, str]:
    """The schema and the prefix of tables that are adopted."""
    return PLACES[where]


@pytest.fixture
def env(request: pytest.FixtureRequest, where: str) -> dict[str, str]:
    return {"SQLALCHEMY_URL": request.getfixturevalue("sqlite_url" if where == "sqlite" else "postgres_url")}


def run(env: dict[str, str], *statements: str) -> None:
    engine = sa.create_engine(env["SQLALCHEMY_URL"], poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def there(env: dict[str, str], place: tuple[str, str]) -> set[str]:
    """Return the names of all tables and views in the place, without the prefix."""
    schema, prefix = place
    engine = sa.create_engine(env["SQLALCHEMY_URL"], poolclass=NullPool)
    inspector = sa.inspect(engine)
    names = {*inspector.get_table_names(schema or None), *inspector.get_view_names(schema or None)}
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def full(place: tuple[str, str], name: str) -> str:
    schema, prefix = place
    return f"{schema}.{name}" if schema else f"{prefix}{name}"


@contextmanager
def adopted(env: dict[str, str], place: tuple[str, str], revisions: Revisions, *before: str) -> Iterator[Tenancy]:
    """Yield a fleet that has adopted tables as acme, beside the tables ``before``."""
    schema, prefix = place
    old = {"SQLALCHEMY_SCHEMA": schema, "SQLALCHEMY_TABLE_PREFIX": prefix}
    for cls in (SYSTEM.get_app_cls(name) for name in SYSTEM.nodes):
        cls(env={**env, **old, "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy"}).close()
    run(env, *(f"CREATE TABLE {full(place, name)} (x integer)" for name in before))
    with Tenancy(system=SYSTEM, env=env, migrations=revisions.path) as tenants:
        tenants.adopt("acme", schema=schema or None, table_prefix=prefix)
        yield tenants


def purge(env: dict[str, str]) -> PurgeCertificate:
    """Purge acme in a process without the code and without the migrations."""
    with Tenancy(env=env) as operator:
        return operator.purge("acme")


def dying_purge(env: dict[str, str]) -> PurgeCertificate | None:
    """Purge acme in a process that drops one table, and dies before it drops a second one."""
    drops = 0

    def count(*arguments: Any) -> None:
        nonlocal drops
        drops += arguments[2].startswith("DROP")
        if drops == 2:
            raise KeyboardInterrupt

    with Tenancy(env=env) as operator:
        engine = operator.fleet.shard.datastore.engine
        sa.event.listen(engine, "before_cursor_execute", count)
        try:
            return operator.purge("acme")
        except KeyboardInterrupt:
            return None
        finally:
            sa.event.remove(engine, "before_cursor_execute", count)


def others(certificate: PurgeCertificate, place: tuple[str, str]) -> set[str]:
    names = {name.rpartition(".")[2].replace('"', "").removeprefix(place[1]) for name in certificate.others}
    return names - {f"schema {place[0]}"}


def test_what_migrations_have_created_is_removed(
    env: dict[str, str], place: tuple[str, str], revisions: Revisions
) -> None:
    view = "op.execute(f\"CREATE VIEW {own_name('seen')} AS SELECT text FROM {own_name('notes')}\")"
    table = "op.execute(f\"CREATE TABLE {own_name('bills')} (x integer)\")"
    revisions.add("b2", "a1", f"{view}\n{table}")
    with adopted(env, place, revisions, "theirs") as tenants:
        migrate(tenants)
        insert(tenants, "acme", "notes", id=1, text="Fido")
        run(env, f"CREATE TABLE {full(place, 'later')} (x integer)")
    certificate = purge(env)
    assert there(env, place) == others(certificate, place) == {"theirs", "later"}
    assert certificate.removed["views"] == 1


def test_sql_that_is_run_by_hand_says_how_to_list_what_it_creates(
    env: dict[str, str], place: tuple[str, str], revisions: Revisions
) -> None:
    output = StringIO()
    with adopted(env, place, revisions, "theirs") as tenants:
        tenants.fleet.migrator.write_sql(tenants["acme"], output)
        lines = output.getvalue().splitlines()
        create, insert_ = (line.removeprefix("-- ").rstrip(";") for line in lines[1:3])
        body = "\n".join(line for line in lines if not line.startswith("-- "))
        statements = [each.strip() for each in body.split(";") if each.strip() not in ("", "BEGIN", "COMMIT")]
        names = [f"{place[1]}{name}" for name in ("notes", "tenant_migrations", "tenant_migrations_created")]
        run(env, *statements, create, *(insert_.replace("NAME", name) for name in names))
        assert {"theirs", "notes", "tenant_migrations", "tenant_migrations_created"} < there(env, place)
        migrate(tenants)
    certificate = purge(env)
    assert there(env, place) == others(certificate, place) == {"theirs"}


def test_what_existed_before_is_kept(env: dict[str, str], place: tuple[str, str], revisions: Revisions) -> None:
    """Also under the names of what the migrations create, changed, replaced or renamed by them."""
    revisions.add("a1", None, 'op.create_table(own_name("notes"), sa.Column("x", sa.Integer), if_not_exists=True)')
    revisions.add(
        "b2",
        "a1",
        """
        op.add_column(own_name("notes"), sa.Column("more", sa.Integer))
        op.rename_table(own_name("first"), own_name("second"))
        with op.batch_alter_table(own_name("replaced"), recreate="always") as batch_op:
            batch_op.add_column(sa.Column("more", sa.Integer))
        """,
    )
    with adopted(env, place, revisions, "notes", "first", "replaced") as tenants:
        migrate(tenants)
    assert there(env, place) >= {"notes", "second", "replaced", "tenant_migrations"}
    certificate = purge(env)
    assert there(env, place) == others(certificate, place) == {"notes", "second", "replaced"}


def test_renames_drops_and_downgrades(env: dict[str, str], place: tuple[str, str], revisions: Revisions) -> None:
    revisions.add(
        "b2",
        "a1",
        'op.rename_table(own_name("notes"), own_name("remarks"))\n'
        'op.create_table(own_name("bills"), sa.Column("x", sa.Integer))',
    )
    revisions.add(
        "c3",
        "b2",
        'op.drop_table(own_name("bills"))\nop.create_table(own_name("more"), sa.Column("x", sa.Integer))',
        'op.drop_table(own_name("more"))',
    )
    with adopted(env, place, revisions) as tenants:
        for target in ("a1", "b2", "c3", "b2"):
            migrate(tenants, target=target)
        insert(tenants, "acme", "remarks", id=1, text="Fido")
        # They have the names of tables that the migrations have dropped.
        run(env, *(f"CREATE TABLE {full(place, name)} (x integer)" for name in ("bills", "more", "notes")))
    certificate = purge(env)
    assert there(env, place) == others(certificate, place) == {"bills", "more", "notes"}


def test_a_downgrade_to_the_base_leaves_nothing(
    env: dict[str, str], place: tuple[str, str], revisions: Revisions
) -> None:
    with adopted(env, place, revisions) as tenants:
        migrate(tenants)
        migrate(tenants, target="base")
    certificate = purge(env)
    assert there(env, place) == others(certificate, place) == set()


def test_a_migration_that_was_not_recorded_in_the_registry(
    env: dict[str, str], place: tuple[str, str], revisions: Revisions
) -> None:
    """A process died after the commit of the tenant and before that of the registry."""
    with adopted(env, place, revisions) as tenants:
        acme = tenants["acme"]
        with suppress(KeyboardInterrupt), tenants.fleet.registry.locked([acme.id]) as (session, _):
            tenants.fleet.migrator.migrate(acme, session)
            raise KeyboardInterrupt
        assert tenants["acme"].versions.migrations == ()
    assert others(purge(env), place) == there(env, place) == set()


def test_a_purge_is_resumed(
    env: dict[str, str],
    where: str,
    place: tuple[str, str],
    revisions: Revisions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sequence = "op.execute(f\"CREATE SEQUENCE {own_name('numbers')}\")" if where != "sqlite" else ""
    revisions.add("b2", "a1", f"op.create_table(own_name('zoos'), sa.Column('x', sa.Integer))\n{sequence}")
    with adopted(env, place, revisions, "theirs") as tenants:
        migrate(tenants)
    monkeypatch.setattr("tenancy.storage.remover._TABLES_PER_DROP", 1)
    purges = 1
    while (certificate := dying_purge(env)) is None:
        purges += 1
    assert purges > 5
    assert there(env, place) == others(certificate, place) == {"theirs"}


@pytest.mark.parametrize("where", ["sqlite", "prefix"])
def test_tables_in_the_placement_of_a_created_tenant(env: dict[str, str], revisions: Revisions) -> None:
    env = {**env, "TENANCY_SCHEMA": "", "TENANCY_TABLE_PREFIX": "{tenant}_"}
    with adopted(env, ("", ""), revisions) as tenants:
        prefix = tenants.create("globex").placement.table_prefix
        revisions.add("b2", "a1", f"op.create_table('{prefix}bills', sa.Column('x', sa.Integer))")
        migrate(tenants, "acme")
        certificate = tenants.purge("acme")
        assert has_table(tenants, "globex", "bills")
        assert has_table(tenants, "globex", "notes")
        assert certificate.others == ()


def test_tables_of_another_adopted_tenant(env: dict[str, str], place: tuple[str, str], revisions: Revisions) -> None:
    """Its names start with those of the purged one, so they are in its placement."""
    schema, prefix = place
    with adopted(env, place, revisions, "theirs") as tenants:
        old = {"SQLALCHEMY_SCHEMA": schema, "SQLALCHEMY_TABLE_PREFIX": f"{prefix}g_"}
        for cls in (SYSTEM.get_app_cls(name) for name in SYSTEM.nodes):
            cls(env={**env, **old, "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy"}).close()
        tenants.adopt("globex", schema=schema or None, table_prefix=f"{prefix}g_")
        # The first tenant's revision creates a name that is the second tenant's later.
        revisions.add("b2", "a1", 'op.create_table(own_name("g_bills"), sa.Column("x", sa.Integer))')
        migrate(tenants, "acme")
        run(env, f"DROP TABLE {full(place, 'g_bills')}")
        revisions.add("b2", "a1", 'op.create_table(own_name("bills"), sa.Column("x", sa.Integer))')
        migrate(tenants, "globex")
        certificate = tenants.purge("acme")
        assert others(certificate, place) == {"theirs"}
        assert has_table(tenants, "globex", "bills")
        assert rows(tenants, "globex", "tenant_migrations") == [("b2",)]
        assert tenants.purge("globex").left["tables"] == 0
    assert there(env, place) == {"theirs"}


@pytest.mark.parametrize("where", ["schema"])
def test_tables_that_others_create_meanwhile(env: dict[str, str], place: tuple[str, str], revisions: Revisions) -> None:
    engine = sa.create_engine(env["SQLALCHEMY_URL"], poolclass=NullPool)
    url = engine.url.render_as_string(hide_password=False)
    revisions.add(
        "b2",
        "a1",
        f"""
        other = sa.create_engine({url!r})
        with other.begin() as connection:
            connection.execute(sa.text("CREATE TABLE old.meanwhile (x integer)"))
        other.dispose()
        with op.get_bind().begin_nested():
            op.create_table(own_name("bills"), sa.Column("x", sa.Integer))
        op.execute("CREATE SEQUENCE numbers")
        """,
    )
    with adopted(env, place, revisions) as tenants:
        migrate(tenants)
    certificate = purge(env)
    assert there(env, place) == others(certificate, place) == {"meanwhile"}
    assert certificate.removed["sequences"] == 1


def test_a_copy_that_is_adopted_again_owns_nothing_of_the_first(
    env: dict[str, str], place: tuple[str, str], revisions: Revisions
) -> None:
    """As after the loss of the registry."""
    with adopted(env, place, revisions) as tenants:
        migrate(tenants)
        with tenants.fleet.registry.locked("acme") as (session, (acme,)):
            tenants.fleet.registry.erase(session, acme, None)
        tenants.fleet.registry_cache.forget(acme.id)
        tenants.adopt("acme", schema=place[0] or None, table_prefix=place[1])
    before = {"notes", "tenant_migrations", "tenant_migrations_created"}
    assert others(purge(env), place) == there(env, place) == before


@pytest.mark.parametrize("where", ["prefix"])
def test_prefixes_of_applications(env: dict[str, str], revisions: Revisions) -> None:
    with adopted(env, ("", "o_{application}_"), revisions) as tenants:
        run(env, "CREATE TABLE o_theirs (x integer)")
        assert len(migrate(tenants)) == 1
    assert "migrations_notes" in there(env, ("", "o_"))
    purge(env)
    assert there(env, ("", "o_")) == {"theirs"}
