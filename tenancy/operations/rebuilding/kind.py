"""The jobs that rebuild a projection's views, and that drop the tables which were replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tenancy.operations.jobs import ItemSkipped, JobItem, JobKind, PlannedItem
from tenancy.operations.rebuilding.rebuild import REBUILDABLE, drop_replaced, has_replaced, rebuild_view

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["WORKERS", "DropReplaced", "Rebuild", "processes_for"]

WORKERS: Final = 4
"""The number of workers of a runner, by default."""


def processes_for(workers: int) -> int:
    """Return how many tenants may be rebuilt at a time beside runners with this number of workers."""
    return max(1, workers // 8)


class Rebuild(JobKind):
    """Rebuilds the views of one projection.

    Parameters: ``projection`` is its name, ``keep_old`` keeps the replaced tables, ``actor`` is for the history.
    ``workers`` is the number of workers of the runners beside it: one tenant is rebuilt at a time for every eight, in
    all jobs together. Raises NotRegistered for a projection that is not part of the fleet.
    """

    name: ClassVar = "rebuild"

    def __init__(self, fleet: Fleet, parameters: Mapping[str, Any]) -> None:
        super().__init__(fleet, parameters)
        self._registered = fleet.projections.named(parameters["projection"])

    @property
    def max_running(self) -> int:
        return processes_for(self.parameters.get("workers", WORKERS))

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        version = self._registered.version
        what = f"rebuild the view of {self._registered.projection.name}"
        if version is not None:
            what += f" as version {version}"
        return [PlannedItem(tenant, what) for tenant in tenants if tenant.status in REBUILDABLE]

    def run(self, tenant: Tenant, item: JobItem) -> str:
        return rebuild_view(
            self.fleet,
            self._registered,
            tenant,
            item,
            keep_old=bool(self.parameters.get("keep_old")),
            actor=self.parameters.get("actor"),
        )


class DropReplaced(JobKind):
    """Drops the tables that rebuilds of a projection have replaced and kept.

    ``projection`` is the projection's name. Raises NotRegistered.
    """

    name: ClassVar = "drop-replaced"

    def __init__(self, fleet: Fleet, parameters: Mapping[str, Any]) -> None:
        super().__init__(fleet, parameters)
        self._projection = fleet.projections.named(parameters["projection"]).projection.name

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        what = f"drop the replaced tables of {self._projection}"
        return [PlannedItem(tenant, what) for tenant in has_replaced(self.fleet, self._projection, tenants)]

    def run(self, tenant: Tenant, item: JobItem) -> str:
        if not drop_replaced(self.fleet, self._projection, tenant):
            msg = "there are no replaced tables"
            raise ItemSkipped(msg)
        return "dropped the replaced tables"
