"""Purging removes everything that a tenant owns and nothing else, according to the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tenancy import Tenancy
from tenancy.errors import TenancyError, TenantNotFound, TransitionRefused
from tenancy.model.tenant import TenantStatus
from tenancy.operations.doctor import repair
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel, Notes, Visits
from tests.support import catalog

pytestmark = pytest.mark.usefixtures("no_purge_delay")


@contextmanager
def connect(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        yield connection


def run(url: str, *statements: str) -> None:
    with connect(url) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def test_nothing_is_left(tenants: Tenancy, url: str) -> None:
    globex = tenants.create("globex")
    others = catalog.tenants(url)
    tenants.create("acme").get(Kennel).register("Fido")
    certificate = tenants.purge("acme")
    assert catalog.tenants(url) == others
    assert certificate.removed["tables"] == 4
    assert set(certificate.left.values()) == {0}
    assert certificate.slug == "acme"
    assert "acme" not in tenants
    globex.get(Kennel).register("Rex")
    with pytest.raises(TenantNotFound):
        tenants.purge("acme")


@pytest.mark.parametrize("status", ["suspend", "archive", "delete"])
def test_any_status_can_be_purged(tenants: Tenancy, url: str, status: str) -> None:
    tenants.create("acme")
    getattr(tenants, status)("acme")
    tenants.purge("acme")
    assert catalog.tenants(url) == set()


def test_many_are_purged_or_none(tenants: Tenancy, url: str) -> None:
    list(tenants.create_many(["a", "b", "c"]))
    with pytest.raises(TenantNotFound, match="'unknown'"):
        list(tenants.purge_many(["a", "unknown", "b"]))
    assert [tenant.status for tenant in tenants] == ["active"] * 3
    assert [certificate.slug for certificate in tenants.purge_many(["A", "c"])] == ["a", "c"]
    assert tenants.slugs() == ["b"]
    assert list(tenants.purge_many([])) == []
    list(tenants.purge_many(["b", "b"]))
    assert catalog.tenants(url) == set()


TEMPLATES = [
    ("sqlite_url", {"TENANCY_TABLE_PREFIX": 'x% "{application}"_{tenant}_'}),
    ("postgres_url", {"TENANCY_SCHEMA": "{tenant}_{application}"}),
    ("postgres_url", {"TENANCY_SCHEMA": '100% "{application}"_{tenant}'}),
    ("postgres_url", {"TENANCY_TABLE_PREFIX": "{tenant}_"}),
    ("postgres_url", {"TENANCY_TABLE_PREFIX": 'x% "{application}"_{tenant}_'}),
    ("postgres_url", {"TENANCY_SCHEMA": "shop", "TENANCY_TABLE_PREFIX": "{tenant}_"}),
    ("postgres_url", {"TENANCY_SCHEMA": "shop_{application}", "TENANCY_TABLE_PREFIX": "{tenant}_"}),
]


@pytest.mark.parametrize(("database", "templates"), TEMPLATES)
def test_nothing_is_left_with_any_template(
    make_fleet: Callable[[str], MakeFleet], request: pytest.FixtureRequest, database: str, templates: dict[str, str]
) -> None:
    url = request.getfixturevalue(database)
    tenants = make_fleet(url)(**templates)
    tenants.create("globex").get(Kennel).register("Rex")
    others = catalog.tenants(url)
    acme = tenants.create("acme")
    acme.get(Kennel).register("Fido")
    with Visits(env=acme.env()) as visits:
        assert visits.recorder.max_tracking_id("Kennel") is None
    assert tenants["globex"].get(Kennel).names() == ["Rex"]
    assert tenants.purge("acme").removed["tables"] == 4
    assert catalog.tenants(url) == others


def test_users_objects_in_a_tenants_schema_are_removed(
    postgres_url: str, make_fleet: Callable[[str], MakeFleet]
) -> None:
    tenants = make_fleet(postgres_url)()
    schema = tenants.create("acme").placement.schema
    run(
        postgres_url,
        "CREATE TABLE public.shared (id integer PRIMARY KEY)",
        f"CREATE TYPE {schema}.mood AS ENUM ('sad', 'ok')",
        f"CREATE TABLE {schema}.owners (id serial PRIMARY KEY, mood {schema}.mood, "
        "shared integer REFERENCES public.shared)",
        f"CREATE TABLE {schema}.walks (id integer GENERATED ALWAYS AS IDENTITY, "
        f"owner integer REFERENCES {schema}.owners)",
        f"CREATE VIEW {schema}.happy AS SELECT * FROM {schema}.owners WHERE mood = 'ok'",
        f"CREATE VIEW {schema}.happier AS SELECT * FROM {schema}.happy",
        f"CREATE MATERIALIZED VIEW {schema}.counts AS SELECT count(*) FROM {schema}.kennel_events",
        f"CREATE MATERIALIZED VIEW {schema}.alone AS SELECT 1 AS one",
        f"CREATE SEQUENCE {schema}.numbers",
        f"CREATE FUNCTION {schema}.one() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        f"CREATE TABLE {schema}.parts (id integer) PARTITION BY RANGE (id)",
        f"CREATE TABLE {schema}.part PARTITION OF {schema}.parts FOR VALUES FROM (1) TO (9)",
        f"CREATE DOMAIN {schema}.positive AS integer CHECK (VALUE > 0)",
    )
    certificate = tenants.purge("acme")
    assert catalog.tenants(postgres_url) == {"public.shared", "public.shared_pkey"}
    assert certificate.removed["views"] == 4
    assert certificate.removed["schemas"] == 1


def test_users_objects_with_a_tenants_prefix_are_removed(fleet: MakeFleet, url: str) -> None:
    tenants = fleet(TENANCY_TABLE_PREFIX="{tenant}_")
    prefix = tenants.create("acme").placement.table_prefix
    tenants.create("globex")
    run(
        url,
        "CREATE TABLE acme_theirs (id integer)",
        f"CREATE TABLE {prefix}owners (id integer)",
        f"CREATE VIEW {prefix}happy AS SELECT * FROM {prefix}owners",
        f"CREATE VIEW {prefix}happier AS SELECT * FROM {prefix}happy",
    )
    if not url.startswith("sqlite"):
        run(url, f"CREATE MATERIALIZED VIEW {prefix}alone AS SELECT 1 AS one", f"CREATE SEQUENCE {prefix}numbers")
    tenants.purge("acme")
    left = catalog.tenants(url)
    assert not any(prefix in name for name in left)
    assert any(name.endswith("acme_theirs") for name in left)
    assert any("globex" in name for name in left)


def test_tenant_in_use_can_be_purged_later(
    postgres_url: str, make_fleet: Callable[[str], MakeFleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction without admission, like a report's or a backup's."""
    monkeypatch.setattr("tenancy.storage.remover._TIMEOUT", 0.0)
    tenants = make_fleet(postgres_url)(SQLALCHEMY_LOCK_TIMEOUT=0.1)
    schema = tenants.create("acme").placement.schema
    with connect(postgres_url) as connection:
        connection.execute(sa.text(f"LOCK TABLE {schema}.kennel_events IN ACCESS SHARE MODE"))
        with pytest.raises(TenancyError, match=r"The tables of tenant 'acme' are in use.*tenancy purge acme"):
            tenants.purge("acme")
    assert tenants["acme"].status == "purging"
    tenants.purge("acme")
    assert catalog.tenants(postgres_url) == set()


def test_purge_limits_locks(postgres_url: str, make_fleet: Callable[[str], MakeFleet]) -> None:
    """Each dropped table takes locks, also for its sequence, index and toast, and all clients share the lock table."""
    tenants = make_fleet(postgres_url)()
    schema = tenants.create("acme").placement.schema
    run(postgres_url, *(f"CREATE TABLE {schema}.t{number} (id serial PRIMARY KEY, x text)" for number in range(50)))
    most = 0

    def count(connection: sa.Connection, *_: object) -> None:
        nonlocal most
        cursor = connection.connection.cursor()
        cursor.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()")
        most = max(most, cursor.fetchall()[0][0])
        cursor.close()

    sa.event.listen(tenants.fleet.shard.datastore.engine, "commit", count)
    assert tenants.purge("acme").removed["tables"] == 54
    assert 20 < most < 250


def test_purge_of_a_tenant_that_was_undeleted_meanwhile_is_refused(tenants: Tenancy) -> None:
    tenants.create("acme").get(Kennel).register("Fido")
    other = tenants.create("other")
    deleted = tenants.delete("acme")
    tenants.undelete("acme")
    with pytest.raises(TransitionRefused, match="'acme' is now active, but was deleted"):
        list(tenants.purge_many([other, deleted]))
    assert tenants["acme"].get(Kennel).names() == ["Fido"]
    assert tenants["other"].status == "active"  # nothing was started


def test_purge_of_a_tenant_spares_the_new_owner_of_its_slug(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like the doctor, which may see a purge in progress and reach the tenant after the purge is done."""
    acme = replace(tenants.create("acme"), status=TenantStatus.PURGING)
    tenants.purge("acme")
    tenants.create("acme").get(Kennel).register("Fido")
    with pytest.raises(TenantNotFound):
        tenants.purge(acme)
    monkeypatch.setattr(Tenancy, "list", lambda *_: [acme])
    list(repair(tenants.fleet))
    assert tenants["acme"].get(Kennel).names() == ["Fido"]


@pytest.mark.parametrize("status", TenantStatus)
def test_repair_creates_no_tables_of_a_tenant_purged_meanwhile(
    fleet: MakeFleet, url: str, monkeypatch: pytest.MonkeyPatch, status: TenantStatus
) -> None:
    """Including tables that an application creates itself."""
    tenants = fleet(Notes)
    acme = replace(tenants.create("acme"), status=status)
    tenants.purge("acme")
    monkeypatch.setattr(Tenancy, "list", lambda *_: [acme])
    list(repair(tenants.fleet))
    assert catalog.tenants(url) == set()
