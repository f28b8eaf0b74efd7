"""Rebuild the views over all tenants whose classes have another version than their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tenancy.operations.migrations.part import Part
from tenancy.operations.rebuilding import AcrossRebuilds

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant
    from tenancy.operations.jobs import JobItem

__all__ = ["CrossTenantViews"]


class CrossTenantViews(Part):
    """See :class:`Part`. Each tenant's events go into the new tables, which replace the others when the job finishes.

    ``rebuilds`` are those of the job.
    """

    def __init__(self, fleet: Fleet, rebuilds: Mapping[str, int], **options: Any) -> None:
        super().__init__(fleet, **options)
        self.rebuilds = AcrossRebuilds(fleet, rebuilds)

    def is_behind(self, tenant: Tenant) -> str | None:
        return self.rebuilds.summary(tenant)

    def apply(self, tenant: Tenant, item: JobItem) -> None:
        self.rebuilds.fill(tenant, item)
