"""Compare the tables of tenants with the code, find those that no tenant owns, and create missing ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tenancy.operations.doctor.finding import Finding, counted, whole_tenants

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["check", "check_orphans", "create_missing"]


def check(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    """Yield missing tables, and tables of another shape."""
    whole = whole_tenants(every)
    faults = list(fleet.inventory.faults(whole, fleet.application_specs()))
    if not faults:
        ready = f"The tables of {counted(len(whole))} are as expected."
        yield Finding(name="tables", level="ok", what=ready if whole else "There are no complete tenants yet.")
    more = [
        application_spec.application
        for application_spec in fleet.application_specs()
        if application_spec.creates_extra_tables
    ]
    if more:
        what = f"Tables that the code of {', '.join(more)} creates itself cannot be checked."
        yield Finding(name="tables", level="ok", what=what, remedy="Create missing ones: tenancy doctor --repair")
    for tenant, what in faults:
        remedy = "Create missing ones: tenancy doctor --repair"
        yield Finding(
            name="tables", level="failure", what=f"{tenant.slug!r}: {what}", remedy=remedy, tenant=tenant.slug
        )


def check_orphans(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    """Yield tables that look like a tenant's, and that no tenant owns."""
    found = fleet.inventory.orphans(every, fleet.application_specs())
    if not found:
        yield Finding(name="orphans", level="ok", what="No orphaned tables.")
    for name in found:
        remedy = "Register it again: tenancy adopt SLUG --schema or --prefix. Or drop it manually."
        yield Finding(
            name="orphans",
            level="warning",
            what=f"{name} looks like tenant storage, but no registered tenant owns it.",
            remedy=remedy,
        )


def create_missing(fleet: Fleet, tenant: Tenant, *, is_broken: bool) -> Finding | None:
    """Create a tenant's missing tables. Return None if none were missing, which only the code may know."""
    application_specs = fleet.application_specs()
    before = 0 if is_broken else len(fleet.inventory.of_tenant(tenant, application_specs).relations)
    fleet.provisioning.create_missing(tenant)
    if not is_broken and len(fleet.inventory.of_tenant(tenant, application_specs).relations) <= before:
        return None
    return Finding(name="tables", level="ok", what=f"{tenant.slug!r} has all its tables.")
