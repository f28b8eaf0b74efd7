"""Migrate tenants: own tables, missing tables, the user's migrations and versioned views."""

from tenancy.operations.migrations.migrate import Migrate, migrate, prepare
from tenancy.operations.migrations.part import Part
from tenancy.operations.migrations.parts import PARTS, parts_of
from tenancy.operations.migrations.status import MigrationStatus, VersionCount, status_of

__all__ = [
    "PARTS",
    "Migrate",
    "MigrationStatus",
    "Part",
    "VersionCount",
    "migrate",
    "parts_of",
    "prepare",
    "status_of",
]
