"""ORM classes for users' own queries. Recorders do not use them.

``recorder.events_record_cls`` maps a new class to the recorder's table in its own registry, so that both are garbage
collected together.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import registry

from eventsourcing_sqlalchemy.tables import TableKind

__all__ = ["EventRecord", "NotificationTrackingRecord", "SnapshotRecord", "StoredEventRecord", "record_class"]


class EventRecord:
    """The common columns of events and snapshots."""

    originator_id: UUID | str
    originator_version: int
    topic: str
    state: bytes


class StoredEventRecord(EventRecord):
    """A row of an events table."""

    id: int


class SnapshotRecord(EventRecord):
    """A row of a snapshots table."""


class NotificationTrackingRecord:
    """A row of a tracking table."""

    application_name: str
    notification_id: int


_BASES: Final[dict[TableKind, type[Any]]] = {
    "events": StoredEventRecord,
    "snapshots": SnapshotRecord,
    "tracking": NotificationTrackingRecord,
}


def record_class(table: sa.Table, kind: TableKind) -> type[Any]:
    """Return a new class mapped to the table."""
    cls = type(_BASES[kind].__name__, (_BASES[kind],), {"__doc__": _BASES[kind].__doc__})
    registry().map_imperatively(cls, table)
    return cls
