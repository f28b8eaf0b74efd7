"""Classes for users who query the tables with SQLAlchemy's ORM. Nothing here is used to write or read events.

A class is mapped to the table of one recorder when it is asked for (``recorder.events_record_cls``), in a registry of
its own, so it is forgotten together with its recorder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy.orm import registry

if TYPE_CHECKING:
    import sqlalchemy as sa

    from eventsourcing_sqlalchemy.tables import TableKind

__all__ = ["EventRecord", "NotificationTrackingRecord", "SnapshotRecord", "StoredEventRecord", "record_class"]


class EventRecord:
    """What records of events and of snapshots have in common."""

    originator_id: UUID | str
    originator_version: int
    topic: str
    state: bytes


class StoredEventRecord(EventRecord):
    """A row of a table of events."""

    id: int


class SnapshotRecord(EventRecord):
    """A row of a table of snapshots."""


class NotificationTrackingRecord:
    """A row of a table of tracking positions."""

    application_name: str
    notification_id: int


_BASES: Final[dict[TableKind, type[Any]]] = {
    "events": StoredEventRecord,
    "snapshots": SnapshotRecord,
    "tracking": NotificationTrackingRecord,
}


def record_class(table: sa.Table, kind: TableKind) -> type[Any]:
    """Return a new class that is mapped to the table."""
    cls = type(_BASES[kind].__name__, (_BASES[kind],), {"__doc__": _BASES[kind].__doc__})
    registry().map_imperatively(cls, table)
    return cls
