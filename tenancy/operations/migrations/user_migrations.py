"""The part of a tenant's migration that runs the user's own revisions."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy.errors import is_retryable
from tenancy.migrations.running import HEADS
from tenancy.model.tenant import TenantStatus, Verb
from tenancy.operations.jobs import ItemSkipped
from tenancy.operations.migrations.parts import Part

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant
    from tenancy.operations.jobs import JobItem

__all__ = ["UserMigrations"]

# Attempts to get the locks of a tenant's tables, and the seconds between them, in which queued writers go on.
_ATTEMPTS: Final = 10
_PAUSE: Final = 0.5
_NOT_MIGRATED: Final = (TenantStatus.PROVISIONING, TenantStatus.PURGING)


class UserMigrations(Part):
    """Migrates the tables that users create with Alembic.

    The version table in the tenant's place is the truth. The registry has a copy, recorded after the migration has
    committed: a process that dies in between leaves an old copy, and the next attempt only corrects it.
    """

    def __init__(self, fleet: Fleet, *, lock_timeout: float, actor: str | None = None, target: str = HEADS) -> None:
        super().__init__(fleet, lock_timeout=lock_timeout, actor=actor)
        self.target = target
        """The revision to migrate to, up or down; by default the newest of every branch."""
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
        return target and f"migrate own tables from {', '.join(revisions) or 'base'} to {target}"

    def apply(self, tenant: Tenant, item: JobItem) -> None:
        if not self.fleet.migrator.is_configured:
            return
        for attempt in range(1, _ATTEMPTS + 1):
            item.check()
            try:
                self._migrate(tenant)
            except PersistenceError as error:
                if attempt == _ATTEMPTS or not is_retryable(error):
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def _migrate(self, tenant: Tenant) -> None:
        # The locked row keeps other processes from migrating, completing or purging the tenant meanwhile.
        with self.fleet.migrator.turn(), self.fleet.registry.locked([tenant.id]) as (session, current):
            if not current or current[0].status in _NOT_MIGRATED:
                msg = "It is being created or purged."
                raise ItemSkipped(msg)
            self.fleet.registry.expect_pause(session)
            revisions = self.fleet.migrator.migrate(current[0], session, self.target, lock_timeout=self.lock_timeout)
            if revisions != current[0].versions.migrations:
                versions = replace(current[0].versions, migrations=revisions)
                self.fleet.registry.change(session, current, Verb.MIGRATE, self.actor, versions=versions)
        self.fleet.registry_cache.forget(tenant.id)
