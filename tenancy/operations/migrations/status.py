"""Show which versions the tenants have, and which tenants are behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tenancy.model.versions import Versions
from tenancy.operations.jobs import PlannedItem
from tenancy.operations.jobs.selection import TenantSelection
from tenancy.operations.migrations.migrate import Migrate

if TYPE_CHECKING:
    from tenancy.fleet import Fleet

__all__ = ["MigrationStatus", "VersionCount", "status_of"]


@dataclass(frozen=True, slots=True)
class VersionCount:
    """Versions, and the number of tenants that have them."""

    versions: Versions
    """Without the tables that exist."""
    tenants: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStatus:
    """The versions of a fleet."""

    head: Versions
    """The versions of the code."""
    counts: Sequence[VersionCount]
    """The versions that tenants have, the most frequent first."""
    behind: Sequence[PlannedItem]
    """The tenants that a migration would change, and how."""


def status_of(fleet: Fleet) -> MigrationStatus:
    """Return the versions of all tenants that have tables, with one query. Changes nothing."""
    tenants = TenantSelection().tenants(fleet.registry)
    counted = Counter(_key(tenant.versions) for tenant in tenants)
    return MigrationStatus(
        head=replace(fleet.head_versions(), migrations=fleet.migrator.heads()),
        counts=[
            VersionCount(Versions(tables=tables, migrations=migrations, views=dict(views)), number)
            for (tables, migrations, views), number in counted.most_common()
        ],
        behind=Migrate(fleet, {}).plan(tenants),
    )


def _key(versions: Versions) -> tuple[int, tuple[str, ...], tuple[tuple[str, str], ...]]:
    return versions.tables, versions.migrations, tuple(sorted(versions.views.items()))
