"""The versions of a tenant's tables, as the registry records them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Self

__all__ = ["Versions"]


@dataclass(frozen=True, slots=True)
class Versions:
    """What a tenant's tables look like: the package's own tables, the user's migrations, and the views."""

    tables: int = 0
    """The version of the package's own tables; 0 for tables that the published package may have created."""
    created: tuple[str, ...] = ()
    """The package's own tables that exist, by their names without a prefix; empty if that is unknown."""
    migrations: tuple[str, ...] = ()
    """The user's migrations that were applied last, one per branch; empty before the first."""
    views: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The version of each projection's view, by projection name; a view without a version is absent."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the versions that :meth:`to_json` has written."""
        return cls(
            tables=value.get("tables", 0),
            created=_shared(tuple(value.get("created", ()))),
            migrations=tuple(value.get("migrations", ())),
            views=dict(value.get("views", {})),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the versions as JSON."""
        return {
            "tables": self.tables,
            "created": list(self.created),
            "migrations": list(self.migrations),
            "views": dict(self.views),
        }

    def created_by(self, head: Self) -> Self:
        """Return the versions of tables that a process at ``head`` has just completed.

        Another process may have created some of them, at these versions. So the older one counts: migrating again is
        harmless, and skipping a step is not.
        """
        return replace(self, tables=min(self.tables, head.tables), created=head.created)

    def extended_by(self, head: Self) -> Self:
        """Return the versions after a process at ``head`` has created the tables that were missing."""
        new = self.lacks(head.created)
        # Where it is unknown what existed before, a view may be old, and is rebuilt.
        views = {
            name: version for name, version in head.views.items() if self.created and f"{name.lower()}_tracking" in new
        }
        return replace(self, created=tuple(sorted({*self.created, *new})), views={**self.views, **views})

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Return those of these own tables that are not known to exist."""
        return sorted(set(names) - set(self.created))


@lru_cache(maxsize=64)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return one object for equal values: most tenants of a fleet have the same."""
    return names
