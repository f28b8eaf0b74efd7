"""Create the tables of applications and projections that are new in the code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenancy.operations.migrations.part import Part

if TYPE_CHECKING:
    from tenancy.model.tenant import Tenant
    from tenancy.operations.jobs import JobItem

__all__ = ["MissingTables"]


class MissingTables(Part):
    """See :class:`Part`. A table that exists, but is not recorded, is recorded."""

    def is_behind(self, tenant: Tenant) -> str | None:
        missing = tenant.versions.lacks(self.fleet.head_versions().created)
        return f"create {', '.join(missing)}" if missing else None

    def apply(self, tenant: Tenant, item: JobItem) -> None:
        self.fleet.provisioning.create_missing(tenant, self.actor)
