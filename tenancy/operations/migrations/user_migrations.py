"""The part of a tenant's migration that runs the user's own revisions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from eventsourcing_sqlalchemy.migrations import retry_while_locked
from tenancy.migrations.running import HEADS
from tenancy.model.tenant import Action, TenantStatus
from tenancy.operations.jobs import ItemSkipped
from tenancy.operations.migrations.part import Part

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant
    from tenancy.operations.jobs import JobItem

__all__ = ["UserMigrations"]

_NOT_MIGRATED: Final = (TenantStatus.PROVISIONING, TenantStatus.PURGING)


class UserMigrations(Part):
    """Migrates the tables that users create with Alembic.

    The version table in the tenant's place is the truth. The registry has a copy, recorded after the migration has
    committed: a process that dies in between leaves an old copy, and the next attempt only corrects it.
    """

    def __init__(self, fleet: Fleet, *, lock_timeout: float, actor: str | None = None, target: str = HEADS) -> None:
        super().__init__(fleet, lock_timeout=lock_timeout, actor=actor, target=target)
        # A fleet has few versions and many tenants.
        self._work: dict[tuple[str, ...], str | None] = {}

    def is_behind(self, tenant: Tenant) -> str | None:
        if not self.fleet.migrator.is_configured or tenant.status in _NOT_MIGRATED:
            return None
        revisions = tenant.versions.migrations
        if revisions not in self._work:
            self._work[revisions] = self._work_on(revisions)
        return self._work[revisions]

    def _work_on(self, revisions: tuple[str, ...]) -> str | None:
        directory = self.fleet.migrator.directory
        target: str | None
        if self.target == HEADS:
            target = ", ".join(directory.heads()) if directory.is_behind(revisions) else None
        elif self.target == "base":
            target = "base" if revisions else None
        else:
            revision = directory.revision(self.target)
            target = None if revision in revisions else revision
        return target and f"run migrations from {', '.join(revisions) or 'base'} to {target}"

    def apply(self, tenant: Tenant, item: JobItem) -> None:
        retry_while_locked(lambda: self._migrate(tenant), item.check)
        self.fleet.changed(tenant)

    def _migrate(self, tenant: Tenant) -> None:
        # The locked row keeps other processes from migrating, completing or purging the tenant meanwhile.
        with self.fleet.migrator.turn(), self.fleet.registry.locked([tenant.id]) as (session, current):
            if not current or current[0].status in _NOT_MIGRATED:
                msg = "It is being created or purged."
                raise ItemSkipped(msg)
            revisions = self.fleet.migrator.migrate(current[0], session, self.target, lock_timeout=self.lock_timeout)
            if revisions != current[0].versions.migrations:
                versions = replace(current[0].versions, migrations=revisions)
                self.fleet.registry.change(session, current, Action.MIGRATE, self.actor, versions=versions)
