"""Rebuild the views whose classes have another version than the tenant's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenancy.operations.migrations.part import Part
from tenancy.operations.rebuilding import REBUILDABLE, rebuild_view

if TYPE_CHECKING:
    from tenancy.model.projections import RegisteredProjection
    from tenancy.model.tenant import Tenant
    from tenancy.operations.jobs import JobItem

__all__ = ["VersionedViews"]


class VersionedViews(Part):
    """See :class:`Part`. A tenant that is offline is not behind: it is migrated after it was restored."""

    def is_behind(self, tenant: Tenant) -> str | None:
        views = [f"{each.projection.name} as version {each.version}" for each in self._behind(tenant)]
        return f"rebuild the view of {', '.join(views)}" if views else None

    def apply(self, tenant: Tenant, item: JobItem) -> None:
        for registered in self._behind(tenant):
            rebuild_view(self.fleet, registered, tenant, item, actor=self.actor)

    def _behind(self, tenant: Tenant) -> list[RegisteredProjection]:
        if tenant.status not in REBUILDABLE:
            return []
        recorded = tenant.versions.views
        return [
            each
            for each in self.fleet.projections
            if each.version is not None and recorded.get(each.projection.name) != each.version
        ]
