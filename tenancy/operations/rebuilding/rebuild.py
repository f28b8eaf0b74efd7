"""Rebuild one tenant's view beside the serving one, and replace that. A killed rebuild resumes where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventsourcing_sqlalchemy.naming import TableName
from tenancy.errors import TenancyError
from tenancy.isolation.spaces import space_of, tenant_of_space
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.operations.jobs import ItemSkipped
from tenancy.operations.rebuilding.shadow import Shadow
from tenancy.operations.rebuilding.swap import Swap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventsourcing_sqlalchemy.dialects.protocols import Executor
    from tenancy.fleet import Fleet
    from tenancy.isolation.spaces import SpaceKind
    from tenancy.model.projections import RegisteredProjection
    from tenancy.operations.jobs import JobItem

__all__ = ["REBUILDABLE", "drop_replaced", "has_replaced", "rebuild_view"]

REBUILDABLE: Final = (TenantStatus.ACTIVE, TenantStatus.SUSPENDED)
"""The statuses of tenants whose views can be rebuilt."""


def rebuild_view(
    fleet: Fleet,
    registered: RegisteredProjection,
    tenant: Tenant,
    item: JobItem,
    *,
    keep_old: bool = False,
    actor: str | None = None,
) -> str:
    """Rebuild a tenant's view from the first notification; return a summary.

    The serving view is read and followed meanwhile, and replaced at the end. With ``keep_old``, its tables are kept
    until :func:`drop_replaced` or the next rebuild. Resumes when it was interrupted and ``item`` is the same.

    Raises ItemSkipped for a tenant that is neither active nor suspended, and TenancyError when an object outside of the
    view depends on it, when the projection fails, or when the view stays in use.
    """
    return _Rebuild(fleet, registered, tenant, item).run(keep_old=keep_old, actor=actor)


def drop_replaced(fleet: Fleet, projection: str, tenant: Tenant) -> bool:
    """Drop the tables of a projection that a rebuild with ``keep_old`` has replaced; return whether there were any."""
    return _drop(fleet, "replaced", tenant, projection)


def has_replaced(fleet: Fleet, projection: str, tenants: Sequence[Tenant]) -> list[Tenant]:
    """Return the tenants with tables of a projection that :func:`drop_replaced` would drop; queries the database
    once.
    """
    dialect = fleet.shard.datastore.dialect

    def names(executor: Executor) -> list[str]:
        if dialect.has_schemas:
            return dialect.schemas(executor, "replaced_")
        return [name for _, name in dialect.relations(executor, None, "replaced_")]

    spaces = {tenant_of_space(TableName(None, name))[0] for name in fleet.shard.datastore.run(names)}
    return [tenant for tenant in tenants if space_of("replaced", tenant.id, projection) in spaces]


def _drop(fleet: Fleet, kind: SpaceKind, tenant: Tenant, projection: str) -> bool:
    datastore, space = fleet.shard.datastore, space_of(kind, tenant.id, projection)
    replacer = datastore.dialect.table_replacer
    if not datastore.run(lambda executor: replacer.names_in(executor, space)):
        return False
    with datastore.transaction() as session:
        datastore.run_in_session(session, lambda executor: replacer.drop(executor, space), savepoint=False)
    return True


# The phases that an item records. Before the first, a shadow that exists is another rebuild's.
_FILLING: Final = "filling"
_SWAPPING: Final = "swapping"
_REPLACED: Final = "replaced"


class _Rebuild:
    def __init__(self, fleet: Fleet, registered: RegisteredProjection, tenant: Tenant, item: JobItem) -> None:
        self._fleet = fleet
        self._registered = registered
        self._tenant = tenant
        self._item = item
        self._name = registered.projection.name
        self._swap = Swap(fleet, registered, tenant, self._require)

    def run(self, *, keep_old: bool, actor: str | None) -> str:
        try:
            return self._run(keep_old=keep_old, actor=actor)
        except ItemSkipped:
            _drop(self._fleet, "rebuild", self._tenant, self._name)
            raise

    def _run(self, *, keep_old: bool, actor: str | None) -> str:
        self._require(self._fleet.registry.get(self._tenant.id))
        phase = self._phase()
        summary = "replaced the view"
        if phase == _SWAPPING and not self._has_shadow():
            self._swap.record(actor)
            phase = _REPLACED
        if phase != _REPLACED:
            try:
                processed = self._build_and_replace(phase, actor)
            except ItemSkipped:
                raise
            except Exception as error:
                # The tables may be missing because the tenant was purged meanwhile.
                self._require(self._fleet.registry.get(self._tenant.id))
                if not self._has_shadow():
                    raise self._superseded() from error
                raise
            summary = f"rebuilt from {processed:,} notifications"
        self._fleet.changed(self._tenant)
        self._save(_REPLACED)
        if keep_old:
            return f"{summary}, kept the old tables"
        _drop(self._fleet, "replaced", self._tenant, self._name)
        return summary

    def _build_and_replace(self, phase: str | None, actor: str | None) -> int:
        is_new = phase is None or not self._has_shadow()
        if is_new:
            _drop(self._fleet, "rebuild", self._tenant, self._name)
        with Shadow(self._fleet, self._registered, self._tenant, create=is_new) as shadow:
            if is_new:
                # A purge that did not drop the new tables had begun before they were created.
                self._require(self._fleet.registry.get(self._tenant.id))
                self._swap.check_dependents()
                self._save(_FILLING)
            shadow.catch_up(self._check)
            self._save(_SWAPPING)
            self._swap.run(shadow, self._check, actor)
            return shadow.processed

    def _superseded(self) -> TenancyError:
        tenant = self._tenant.slug
        msg = f"The view of projection {self._name!r} of tenant {tenant!r} was rebuilt by another process meanwhile."
        return TenancyError(msg, remedy="Rebuild it again if the other process ran older code.", tenant=tenant)

    def _phase(self) -> str | None:
        progress = self._item.progress.get(self._name, {})
        # A shadow that other code has filled is filled again.
        return progress.get("phase") if progress.get("version") == self._registered.version else None

    def _save(self, phase: str) -> None:
        # One item may rebuild several views.
        own = {"phase": phase, "version": self._registered.version}
        self._item.save_progress({**self._item.progress, self._name: own})

    def _has_shadow(self) -> bool:
        datastore, space = self._fleet.shard.datastore, space_of("rebuild", self._tenant.id, self._name)
        return bool(datastore.run(lambda executor: datastore.dialect.table_replacer.names_in(executor, space)))

    def _check(self) -> None:
        self._item.check()
        self._require(self._fleet.registry_cache.get(self._tenant.id))

    def _require(self, current: Tenant | None) -> None:
        """Raise ItemSkipped unless the tenant's view can be rebuilt."""
        status = "purged" if current is None else current.status
        if status not in REBUILDABLE:
            msg = f"the tenant is {status}"
            raise ItemSkipped(msg)
