"""Fleets with views to rebuild, and what their tables look like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.operations.jobs import JobItem
from tenancy.operations.rebuilding import rebuild_view
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.ledger import KeepLedger, KeepNames, Ledger, RawLedger
from tests.support.job_items import Item

APP = "tests.support.rebuilds:command_fleet"


def command_fleet() -> Tenancy:
    """Return the fleet of the commands."""
    tenants = Tenancy(applications=[TrainingSchool])
    tenants.project(TrainingSchool, KeepLedger, Ledger)
    tenants.project(TrainingSchool, KeepNames, RawLedger)
    return tenants


@contextmanager
def ledger_fleet(url: str, settings: Mapping[str, str], view: type[Ledger] = Ledger) -> Iterator[Tenancy]:
    """Yield a fleet of schools with both ledgers."""
    with Tenancy(applications=[TrainingSchool], env={"SQLALCHEMY_URL": url, **settings}) as tenants:
        tenants.project(TrainingSchool, KeepLedger, view)
        tenants.project(TrainingSchool, KeepNames, RawLedger)
        yield tenants


def fill(tenants: Tenancy, slug: str, dogs: int) -> None:
    """Register dogs that know two tricks each."""
    for number in range(dogs):
        tenants[slug].get(TrainingSchool).register(f"dog {number}", "sit", "stay")


def ledger(tenants: Tenancy, slug: str = "acme") -> Ledger:
    """Return a tenant's ledger."""
    view = tenants.projection(KeepLedger, slug).view
    assert isinstance(view, Ledger)
    return view


def raw_ledger(tenants: Tenancy, slug: str = "acme") -> RawLedger:
    """Return a tenant's ledger of names."""
    view = tenants.projection(KeepNames, slug).view
    assert isinstance(view, RawLedger)
    return view


def rebuild(tenants: Tenancy, item: JobItem | None = None, projection: str = KeepLedger.name, **options: Any) -> str:
    """Rebuild the view of the tenant acme."""
    fleet = tenants.fleet
    registered = fleet.projections.named(projection)
    return rebuild_view(fleet, registered, tenants["acme"], item or Item(), **options)


def expected_content(tenants: Tenancy, slug: str = "acme") -> list[tuple[str, str, list[str]]]:
    """Return what a sequential projection of a tenant's events puts into the ledger."""
    dogs: dict[str, tuple[str, str, list[str]]] = {}
    school = tenants[slug].get(TrainingSchool)
    for notification in school.recorder.select_notifications(start=None, limit=10**6):
        domain_event: Any = school.mapper.to_domain_event(notification)
        dog = str(domain_event.originator_id)
        if hasattr(domain_event, "name"):
            dogs[dog] = (dog, domain_event.name, [])
        else:
            dogs[dog][2].append(domain_event.trick)
    return list(dogs.values())


def objects(tenants: Tenancy) -> set[tuple[str, ...]]:
    """Return the definitions of all tables, indexes, constraints, sequences, views and types of the database."""
    datastore = tenants.fleet.shard.datastore
    with datastore.engine.connect() as connection:
        statements = _POSTGRESQL if datastore.dialect.has_schemas else [_SQLITE]
        return {tuple(map(str, row)) for each in statements for row in connection.execute(sa.text(each))}


def spaces(tenants: Tenancy) -> list[str]:
    """Return what exists of rebuilds: the definitions that name a space."""
    return sorted(str(each) for each in objects(tenants) if any("rebuild_" in e or "replaced_" in e for e in each))


_OURS = "NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'tenancy')"
_POSTGRESQL = [
    f"SELECT 'index', schemaname, indexname, indexdef FROM pg_indexes WHERE schemaname {_OURS}",
    (
        f"SELECT 'constraint', n.nspname, conname, conrelid::regclass, pg_get_constraintdef(c.oid) "
        f"FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace WHERE n.nspname {_OURS}"
    ),
    (
        f"SELECT 'column', table_schema, table_name, column_name, udt_schema, udt_name, is_nullable, column_default, "
        f"identity_generation FROM information_schema.columns WHERE table_schema {_OURS}"
    ),
    (
        f"SELECT 'relation', nspname, relname, relkind FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        f"WHERE nspname {_OURS}"
    ),
    (
        f"SELECT 'type', nspname, typname FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace "
        f"WHERE nspname {_OURS} AND typtype IN ('e', 'd')"
    ),
    f"SELECT 'view', schemaname, viewname, definition FROM pg_views WHERE schemaname {_OURS}",
    f"SELECT 'schema', nspname FROM pg_namespace WHERE nspname {_OURS} AND nspname !~ '^pg_'",
]
_SQLITE = "SELECT type, name, tbl_name, replace(sql, '\"', '') FROM sqlite_master WHERE name NOT LIKE 'tenancy_%'"
