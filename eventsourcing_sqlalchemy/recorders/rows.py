"""Convert rows to the library's objects, which would otherwise dominate the cost of a read.

The constructors of frozen data classes and of UUID assign attributes one by one, with checks. These functions fill
``__dict__`` directly and return equal objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent

__all__ = ["to_notifications", "to_stored_events"]

_new = object.__new__


def to_stored_events(originator_id: UUID | str, rows: Iterable[Sequence[Any]]) -> list[StoredEvent]:
    """Return one aggregate's events from rows of originator_version, topic and state."""
    events = []
    for version, topic, state in rows:
        event = _new(StoredEvent)
        attributes = event.__dict__
        attributes["originator_id"] = originator_id
        attributes["originator_version"] = version
        attributes["topic"] = topic
        attributes["state"] = state if type(state) is bytes else bytes(state)
        events.append(event)
    return events


def to_notifications(
    rows: Iterable[Sequence[Any]], read_originator_id: Callable[[Any], UUID | str]
) -> list[Notification]:
    """Return notifications from rows of id, originator_id, originator_version, topic and state."""
    found = []
    for number, originator_id, version, topic, state in rows:
        notification = _new(Notification)
        attributes = notification.__dict__
        attributes["originator_id"] = (
            originator_id if type(originator_id) is UUID else read_originator_id(originator_id)
        )
        attributes["originator_version"] = version
        attributes["topic"] = topic
        attributes["state"] = state if type(state) is bytes else bytes(state)
        attributes["id"] = number
        found.append(notification)
    return found
