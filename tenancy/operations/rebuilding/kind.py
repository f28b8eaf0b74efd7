"""The jobs that rebuild a projection's views, and that drop the tables which were replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tenancy.errors import InvalidArgument
from tenancy.operations.jobs import ItemSkipped, JobItem, JobKind, PlannedItem
from tenancy.operations.rebuilding.across import new_rebuild
from tenancy.operations.rebuilding.across_views import VIEWS, AcrossRebuilds
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
    """Rebuilds the views of one projection, or the one view of a projection over all tenants.

    Parameters: ``projection`` is its name, ``keep_old`` keeps the replaced tables, ``actor`` is for the history,
    ``is_selection`` says that tenants were selected. ``workers`` is the number of workers of the runners beside it: one
    tenant is rebuilt at a time for every eight, in all jobs together. Raises NotRegistered for a projection that is not
    part of the fleet, and InvalidArgument for a parameter that does not apply to a view over all tenants.
    """

    name: ClassVar = "rebuild"

    def __init__(self, fleet: Fleet, parameters: Mapping[str, Any]) -> None:
        super().__init__(fleet, parameters)
        name = parameters["projection"]
        self._across = AcrossRebuilds(fleet, parameters.get(VIEWS, {}))
        across = [each.name for each in fleet.cross_tenant]
        self._registered = None if name in across else fleet.projections.named(name, across)
        if self._registered is None:
            _check_across(name, parameters)

    @property
    def max_running(self) -> int:
        return processes_for(self.parameters.get("workers", WORKERS))

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        if self._registered is None:
            name = self.parameters["projection"]
            self._across = AcrossRebuilds(self.fleet, {name: new_rebuild()})
            self.parameters = {**self.parameters, VIEWS: self._across.numbers}
            planned = ((tenant, self._across.summary(tenant)) for tenant in tenants)
            return [PlannedItem(tenant, summary) for tenant, summary in planned if summary]
        version = self._registered.version
        what = f"rebuild the view of {self._registered.projection.name}"
        if version is not None:
            what += f" as version {version}"
        return [PlannedItem(tenant, what) for tenant in tenants if tenant.status in REBUILDABLE]

    def begin(self) -> None:
        self._across.begin()

    def run(self, tenant: Tenant, item: JobItem) -> str:
        if self._registered is None:
            return f"processed {self._across.fill(tenant, item):,} notifications"
        return rebuild_view(
            self.fleet,
            self._registered,
            tenant,
            item,
            keep_old=bool(self.parameters.get("keep_old")),
            actor=self.parameters.get("actor"),
        )

    @property
    def has_finish(self) -> bool:
        return bool(self._across.numbers)

    def finish(self, check: Callable[[], None]) -> None:
        self._across.finish(check)


def _check_across(name: str, parameters: Mapping[str, Any]) -> None:
    if parameters.get("is_selection"):
        msg = f"The view of projection {name!r} has rows of all tenants, and cannot be rebuilt for some of them."
        raise InvalidArgument(msg, remedy=f"Select no tenants: tenancy rebuild {name}")
    if parameters.get("keep_old"):
        msg = f"The replaced tables of projection {name!r} cannot be kept: a purge would leave a tenant's rows in them."
        raise InvalidArgument(msg, remedy=f"Rebuild it without --keep-old: tenancy rebuild {name}")


class DropReplaced(JobKind):
    """Drops the tables that rebuilds of a projection have replaced and kept.

    ``projection`` is the projection's name. Raises NotRegistered, and InvalidArgument for a view over all tenants.
    """

    name: ClassVar = "drop-replaced"

    def __init__(self, fleet: Fleet, parameters: Mapping[str, Any]) -> None:
        super().__init__(fleet, parameters)
        name = parameters["projection"]
        if name in fleet.cross_tenant:
            raise InvalidArgument(f"The view of projection {name!r} has no replaced tables: they are not kept.")
        self._projection = fleet.projections.named(name).projection.name

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        what = f"drop the replaced tables of {self._projection}"
        return [PlannedItem(tenant, what) for tenant in has_replaced(self.fleet, self._projection, tenants)]

    def run(self, tenant: Tenant, item: JobItem) -> str:
        if not drop_replaced(self.fleet, self._projection, tenant):
            msg = "there are no replaced tables"
            raise ItemSkipped(msg)
        return "dropped the replaced tables"
