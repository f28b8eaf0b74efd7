"""The parts of a tenant's migration, and their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tenancy.migrations.running import HEADS
from tenancy.operations.migrations.missing_tables import MissingTables
from tenancy.operations.migrations.own_tables import OwnTables
from tenancy.operations.migrations.part import Part
from tenancy.operations.migrations.user_migrations import UserMigrations
from tenancy.operations.migrations.versioned_views import VersionedViews

if TYPE_CHECKING:
    from tenancy.fleet import Fleet

__all__ = ["PARTS", "parts_of"]

PARTS: Final[tuple[type[Part], ...]] = (OwnTables, MissingTables, UserMigrations, VersionedViews)
"""The parts in the order in which a tenant is migrated: own tables, missing tables, the user's migrations, versioned
views.
"""


def parts_of(fleet: Fleet, *, lock_timeout: float, actor: str | None = None, target: str = HEADS) -> list[Part]:
    """Return the parts for a fleet."""
    return [part(fleet, lock_timeout=lock_timeout, actor=actor, target=target) for part in PARTS]
