"""The operation that migrates tenants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eventsourcing_sqlalchemy.migrations import LOCK_TIMEOUT
from tenancy.migrations.running import HEADS
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.operations.jobs import ItemSkipped, JobItem, JobKind, JobOptions, JobReport, PlannedItem, run_job
from tenancy.operations.jobs.selection import TenantSelection
from tenancy.operations.migrations.cross_tenant_views import CrossTenantViews
from tenancy.operations.migrations.parts import parts_of
from tenancy.operations.rebuilding import VIEWS, AcrossRebuilds, new_rebuild

if TYPE_CHECKING:
    from tenancy.fleet import Fleet

__all__ = ["Migrate", "migrate", "prepare"]


class Migrate(JobKind):
    """Brings each tenant to the versions of the code, part after part.

    Parameters: ``lock_timeout`` in seconds, ``actor`` for the history, and ``to``, the revision that the user's
    migrations go to, up or down. Planning adds the views over all tenants that the job rebuilds.
    """

    name = "migrate"

    def __init__(self, fleet: Fleet, parameters: Mapping[str, Any]) -> None:
        super().__init__(fleet, parameters)
        lock_timeout = parameters.get("lock_timeout", LOCK_TIMEOUT)
        self._views = CrossTenantViews(fleet, parameters.get(VIEWS, {}), lock_timeout=lock_timeout)
        target, actor = parameters.get("to") or HEADS, parameters.get("actor")
        self._parts = [*parts_of(fleet, lock_timeout=lock_timeout, actor=actor, target=target), self._views]

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        self._views.rebuilds = _outdated_views(self.fleet)
        self.parameters = {**self.parameters, VIEWS: self._views.rebuilds.numbers}
        planned = ((tenant, self.summary(tenant)) for tenant in tenants)
        return [PlannedItem(tenant, summary) for tenant, summary in planned if summary]

    def summary(self, tenant: Tenant) -> str:
        """Return what a tenant lacks, in one line; empty for one that is current."""
        return "; ".join(filter(None, (part.is_behind(tenant) for part in self._parts)))

    def begin(self) -> None:
        self._views.rebuilds.begin()

    @property
    def has_finish(self) -> bool:
        return bool(self._views.rebuilds.numbers)

    def finish(self, check: Callable[[], None]) -> None:
        self._views.rebuilds.finish(check)

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
    """Migrate the registry, record the applications that are new in the code, and create missing views over all
    tenants.

    Raises RegistryMissing, and RegistryMismatch for a registry of a newer format.
    """
    fleet.registry.migrate()
    fleet.provisioning.record_new_applications()
    fleet.cross_tenant.create_tables()
    outdated = _outdated_views(fleet)
    if outdated.numbers and not TenantSelection().tenants(fleet.registry):
        # Without tenants there is no job.
        outdated.begin()
        outdated.finish(lambda: None)


def _outdated_views(fleet: Fleet) -> AcrossRebuilds:
    return AcrossRebuilds(fleet, {each.name: new_rebuild() for each in fleet.cross_tenant.outdated()})


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
