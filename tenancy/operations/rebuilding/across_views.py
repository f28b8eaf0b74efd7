"""The views over all tenants that one job rebuilds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from tenancy.operations.rebuilding.across import FILLABLE, CrossTenantShadow, begin_rebuild, has_replaced
from tenancy.operations.rebuilding.swap_across import check_dependents, finish_rebuild

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant
    from tenancy.operations.jobs import JobItem
    from tenancy.storage.cross_tenant import CrossTenantProjection

__all__ = ["VIEWS", "AcrossRebuilds"]

VIEWS: Final = "views"
"""The parameter of a job that records the numbers of its rebuilds, by the name of the projection."""


class AcrossRebuilds:
    """Rebuilds of views over all tenants: ``numbers`` has the number of each, by the name of its projection."""

    def __init__(self, fleet: Fleet, numbers: Mapping[str, int]) -> None:
        self._fleet = fleet
        self.numbers = dict(numbers)

    def summary(self, tenant: Tenant) -> str | None:
        """Return what :meth:`fill` does with a tenant, in one line, or None for one whose events no view needs."""
        if not self.numbers or tenant.status not in FILLABLE:
            return None
        views = ", ".join(_described(self._fleet.cross_tenant[name]) for name in self.numbers)
        return f"rebuild the view over all tenants of {views}"

    def begin(self) -> None:
        """Create the new tables. Raises TenancyError when an object outside of a view depends on it."""
        for name, number in self.numbers.items():
            projection = self._fleet.cross_tenant[name]
            projection.create_tables()
            check_dependents(projection)
            begin_rebuild(projection, number)

    def fill(self, tenant: Tenant, item: JobItem) -> int:
        """Process a tenant's notifications for the new tables; return how many. Raises as CrossTenantShadow.fill."""
        processed = 0
        for name, number in self.numbers.items():
            projection = self._fleet.cross_tenant[name]
            with CrossTenantShadow(self._fleet, projection, number) as shadow:
                if not has_replaced(projection, number):
                    shadow.require_tables()
                    processed += shadow.fill(tenant, item.check)
        return processed

    def finish(self, check: Callable[[], None]) -> None:
        """Replace the serving tables. Raises as :func:`finish_rebuild` does."""
        for name, number in self.numbers.items():
            finish_rebuild(self._fleet, self._fleet.cross_tenant[name], number, check)


def _described(projection: CrossTenantProjection) -> str:
    return projection.name if projection.version is None else f"{projection.name} as version {projection.version}"
