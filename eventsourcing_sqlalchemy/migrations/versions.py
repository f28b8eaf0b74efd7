"""The version of a table, by its shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.tables import TableShape, TableSpec

__all__ = ["HEAD", "version_of"]

HEAD: Final = 1
"""The version of new tables."""


def version_of(specs: Sequence[TableSpec], shapes: Mapping[TableName, TableShape]) -> int:
    """Return the version of the oldest of these tables; tables without a shape are skipped, because they are created
    at the head.
    """
    return min((_version(spec, shapes[spec.name]) for spec in specs if spec.name in shapes), default=HEAD)


def _version(spec: TableSpec, shape: TableShape) -> int:
    if spec.kind == "tracking" and shape.columns.get("application_name", "").startswith("varchar"):
        return 0
    return 0 if spec.kind == "events" and shape.reuses_ids else 1
