"""The place of one tenant's tables, as its migrations see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eventsourcing_sqlalchemy.naming import quote, shorten_identifier
from tenancy.errors import TenancyError

if TYPE_CHECKING:
    from tenancy.model.placement import Placement

__all__ = ["CREATED_TABLE", "VERSION_TABLE", "MigrationPlace"]

VERSION_TABLE: Final = "tenant_migrations"
"""The name of the version table. It is not Alembic's default: an adopted tenant may share its schema with a service
that has migrations of its own.
"""
CREATED_TABLE: Final = f"{VERSION_TABLE}_created"
"""The name of the table that lists what the migrations of an adopted tenant have created."""
# Stands for the application where a placement has a prefix for each one, and a table belongs to none.
_OF_NO_APPLICATION: Final = "migrations"


@dataclass(frozen=True, slots=True)
class MigrationPlace:
    """Where a tenant's migrations create their tables, and how they name them."""

    placement: Placement
    applications: Sequence[str]
    """The names of the fleet's applications and projections."""
    limit: int | None
    """The most bytes of a name in the database."""

    def check(self) -> None:
        """Raise TenancyError for a placement with a schema per application: migrations need one schema."""
        if not self.is_single:
            msg = "The placement has a schema for each application. Migrations need one schema per tenant."
            raise TenancyError(msg, remedy="Use TENANCY_SCHEMA without {application} for fleets with migrations.")

    @property
    def is_single(self) -> bool:
        """Whether the tenant has one schema for all of its applications."""
        return "{application}" not in (self.placement.schema or "")

    @property
    def schema(self) -> str | None:
        """The schema of the tables; None for the default one, and where the database has no schemas."""
        return self.placement.schema

    @property
    def search_path(self) -> str | None:
        """The value of ``search_path`` that leads statements without a schema to the tenant's tables."""
        return None if self.schema is None else quote(self.schema)

    @property
    def version_table(self) -> str:
        """The name of the table that holds the tenant's revisions."""
        return self.own_name(VERSION_TABLE)

    @property
    def created_table(self) -> str:
        """The name of the table that lists what the migrations of an adopted tenant have created."""
        return self.own_name(CREATED_TABLE)

    def own_name(self, name: str) -> str:
        """Return the tenant's name for a table, an index or a constraint; truncated as ``own_table`` does."""
        applications = [each.lower() for each in self.applications if name.startswith(f"{each.lower()}_")]
        application = max(applications, key=len, default=_OF_NO_APPLICATION)
        return shorten_identifier(f"{self.placement.prefix_of(application)}{name}", self.limit)
