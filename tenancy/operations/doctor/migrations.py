"""Compare the versions of tenants' tables with the code, and with what their revisions create."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from eventsourcing.persistence import PersistenceError

from tenancy.errors import TenancyError
from tenancy.model.tenant import Action
from tenancy.operations.doctor.finding import Finding, counted, whole_tenants
from tenancy.operations.migrations import Migrate

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["check", "check_drift", "record_versions"]


def check(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    """Yield whether tenants are behind the code, and versions that are recorded wrongly."""
    whole = whole_tenants(every)
    older = list(_older_than_recorded(fleet, whole))
    for tenant, version in older:
        yield Finding(
            name="migrations",
            level="failure",
            what=f"{tenant.slug!r}: own tables of version {version}, and version {tenant.versions.tables} is recorded.",
            remedy="Record their version: tenancy doctor --repair. Then: tenancy migrate",
            tenant=tenant.slug,
        )
    behind = Migrate(fleet, {}).plan(whole)
    if behind:
        what = f"{counted(len(behind))} to migrate, for example {behind[0].tenant.slug!r}: {behind[0].summary}."
        yield Finding(name="migrations", level="warning", what=what, remedy="Migrate: tenancy migrate")
    elif not older:
        yield Finding(name="migrations", level="ok", what=f"{counted(len(whole))} at the version of the code.")


def check_drift(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    """Compare the tables that migrations create with those of a reference tenant at the same revision."""
    if not fleet.migrator.is_configured:
        return
    whole = whole_tenants(every)
    try:
        drifts = list(fleet.migrator.reference().drift(whole))
    except Exception as error:  # noqa: BLE001 (revisions are the user's code)
        reason = str(error) if isinstance(error, TenancyError | PersistenceError) else type(error).__name__
        what = f"The tables of migrations cannot be examined: {reason.rstrip('.')}."
        remedy = "Fix the revisions. If this role may not create a schema, run doctor as one that may."
        yield Finding(name="drift", level="warning", what=what, remedy=remedy)
        return
    if not drifts:
        what = f"The tables of migrations of {counted(len(whole))} are as their revisions create them."
        yield Finding(name="drift", level="ok", what=what)
    for each in drifts:
        slug = each.tenant.slug
        remedy = "Undo the change by hand, or make it a revision: tenancy migrations revision"
        yield Finding(
            name="drift", level="failure", what=f"{slug!r}: {each.table} {each.what}.", remedy=remedy, tenant=slug
        )


def _older_than_recorded(fleet: Fleet, whole: Sequence[Tenant]) -> Iterator[tuple[Tenant, int]]:
    for tenant, version in fleet.inventory.versions(whole, fleet.application_specs()):
        if version < tenant.versions.tables:
            yield tenant, version


def record_versions(fleet: Fleet, every: Sequence[Tenant], actor: str | None) -> Iterator[Finding]:
    """Record the version that a tenant's tables have, where a higher one is recorded; yield each repair."""
    for tenant, version in _older_than_recorded(fleet, whole_tenants(every)):
        with fleet.registry.locked(tenant.id) as (session, current):
            for found in current:
                versions = replace(found.versions, tables=version)
                fleet.registry.change(session, [found], Action.MIGRATE, actor, versions=versions)
        what = f"{tenant.slug!r}: version {version} of its own tables is recorded."
        yield Finding(name="migrations", level="ok", what=what, tenant=tenant.slug)
