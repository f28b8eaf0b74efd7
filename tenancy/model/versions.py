"""The versions of a tenant's tables, as the registry records them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = ["Versions"]


@dataclass(frozen=True, slots=True)
class Versions:
    """What a tenant's tables look like: the package's own tables, the user's migrations, and the views."""

    tables: int = 0
    """The version of the package's own tables; 0 for tables that the published package may have created."""
    migrations: tuple[str, ...] = ()
    """The user's migrations that were applied last, one per branch; empty before the first."""
    views: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The version of each projection's view, by projection name; a view without a version is absent."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the versions that :meth:`to_json` has written."""
        return cls(
            tables=value.get("tables", 0),
            migrations=tuple(value.get("migrations", ())),
            views=dict(value.get("views", {})),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the versions as JSON."""
        return {"tables": self.tables, "migrations": list(self.migrations), "views": dict(self.views)}
