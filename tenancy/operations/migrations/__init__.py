"""Migrate tenants: own tables, missing tables, the user's migrations and versioned views."""

from tenancy.operations.migrations.parts import PARTS, Part

__all__ = ["PARTS", "Part"]
