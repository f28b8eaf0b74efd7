"""Migrate a tenant's events, snapshots and tracking tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from eventsourcing_sqlalchemy.migrations import HEAD, retry_while_locked
from tenancy.model.tenant import Action, TenantStatus
from tenancy.operations.migrations.part import Part

if TYPE_CHECKING:
    from tenancy.model.tenant import Tenant
    from tenancy.operations.jobs import JobItem

__all__ = ["OwnTables"]


class OwnTables(Part):
    """See :class:`Part`. All tables of a tenant are migrated in one transaction."""

    def is_behind(self, tenant: Tenant) -> str | None:
        found = tenant.versions.tables
        return f"migrate own tables from version {found} to {HEAD}" if found < HEAD else None

    def apply(self, tenant: Tenant, item: JobItem) -> None:
        # A killed process leaves the tables at the head and their recorded version behind: the next call finds nothing
        # to do, and records it. The row lock is released between attempts, so that the tenant can be suspended.
        retry_while_locked(lambda: self._attempt(tenant), item.check)
        self.fleet.changed(tenant)

    def _attempt(self, tenant: Tenant) -> None:
        registry, specs = self.fleet.registry, self.fleet.application_specs()
        with registry.locked(tenant.id) as (session, current):
            for found in current:
                if found.status is not TenantStatus.PURGING and self.is_behind(found):
                    self.fleet.provisioner.migrate_tables(
                        found.placement, specs, session, lock_timeout=self.lock_timeout
                    )
                    versions = replace(found.versions, tables=HEAD)
                    registry.change(session, [found], Action.MIGRATE, self.actor, versions=versions)
