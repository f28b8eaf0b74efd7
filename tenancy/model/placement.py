"""Where a tenant's tables are."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Placement"]


@dataclass(frozen=True, slots=True)
class Placement:
    """A schema, a prefix of the table names, or both. Each may contain ``{application}``."""

    schema: str | None
    table_prefix: str
    owns_schema: bool = False
    """Whether the schema holds this tenant's data only, so that purging the tenant drops all of it."""

    def __str__(self) -> str:
        return self.schema if self.schema and not self.table_prefix else f"{self.schema or ''}{self.table_prefix}"

    def schema_of(self, application: str) -> str | None:
        """Return the schema of one application's tables, or None."""
        return self.schema and self.schema.replace("{application}", application.lower())

    def prefix_of(self, application: str) -> str:
        """Return the prefix of the names of one application's tables."""
        return self.table_prefix.replace("{application}", application.lower())
