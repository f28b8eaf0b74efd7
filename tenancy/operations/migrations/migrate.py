"""The operation that migrates tenants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eventsourcing_sqlalchemy.migrations import LOCK_TIMEOUT
from tenancy.migrations.running import HEADS
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.operations.jobs import ItemSkipped, JobItem, JobKind, JobOptions, JobReport, PlannedItem, run_job
from tenancy.operations.jobs.selection import TenantSelection
from tenancy.operations.migrations.parts import parts_of

if TYPE_CHECKING:
    from tenancy.fleet import Fleet

__all__ = ["Migrate", "migrate", "prepare"]


class Migrate(JobKind):
    """Brings each tenant to the versions of the code, part after part.

    Parameters: ``lock_timeout`` in seconds, ``actor`` for the history, and ``to``, the revision that the user's
    migrations go to, up or down.
    """

    name = "migrate"

    def __init__(self, fleet: Fleet, parameters: Mapping[str, Any]) -> None:
        super().__init__(fleet, parameters)
        self._parts = parts_of(
            fleet,
            lock_timeout=parameters.get("lock_timeout", LOCK_TIMEOUT),
            actor=parameters.get("actor"),
            target=parameters.get("to") or HEADS,
        )

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        planned = ((tenant, self.summary(tenant)) for tenant in tenants)
        return [PlannedItem(tenant, summary) for tenant, summary in planned if summary]

    def summary(self, tenant: Tenant) -> str:
        """Return what a tenant lacks, in one line; empty for one that is current."""
        return "; ".join(filter(None, (part.is_behind(tenant) for part in self._parts)))

    def run(self, tenant: Tenant, item: JobItem) -> str:
        done = []
        for part in self._parts:
            # Again for each part: the one before has recorded other versions.
            current = self.fleet.registry.get(tenant.id)
            if current is None or current.status is TenantStatus.PURGING:
                reason = "purged"
                raise ItemSkipped(reason)
            summary = part.is_behind(current)
            if summary is not None:
                item.check()
                part.apply(current, item)
                done.append(summary)
        if not done:
            reason = "current"
            raise ItemSkipped(reason)
        return "; ".join(done)


def prepare(fleet: Fleet) -> None:
    """Migrate the registry, and record the applications that are new in the code.

    Raises RegistryMissing, and RegistryMismatch for a registry of a newer format.
    """
    fleet.registry.migrate()
    fleet.provisioning.record_new_applications()


def migrate(
    fleet: Fleet,
    *,
    tenants: TenantSelection | None = None,
    options: JobOptions | None = None,
    lock_timeout: float = LOCK_TIMEOUT,
    to: str = HEADS,
    actor: str | None = None,
) -> JobReport:
    """Migrate the registry and then, in this process, the tenants that are behind; return how the job has ended.

    ``to`` is the revision that the user's migrations go to, up or down.
    """
    prepare(fleet)
    selection = TenantSelection() if tenants is None else tenants
    return run_job(
        fleet,
        Migrate,
        {"lock_timeout": lock_timeout, "actor": actor, "to": to},
        selection.tenants(fleet.registry),
        options,
        actor=actor,
        limit=selection.limit,
    )
