"""Validate values before anything is sent. Errors name an attribute and its type, never its value."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from eventsourcing.persistence import DataError, StoredEvent, Tracking

from eventsourcing_sqlalchemy.dialects.tracking import ConditionalTracking

_MAX_VERSION = 2**63 - 1


def check_events(events: Sequence[StoredEvent], max_bytes: int) -> int:
    """Return the total size of the states in bytes; raises DataError for a value that cannot be stored unchanged."""
    total = 0
    for event in events:
        state, topic, version = event.state, event.topic, event.originator_version
        if not isinstance(state, (bytes, bytearray, memoryview)):
            msg = (
                f"The state of a stored event must be bytes, not {type(state).__name__}. Check the "
                "application's transcoder."
            )
            raise DataError(msg)
        if not isinstance(topic, str):
            msg = f"The topic of a stored event must be a str, not {type(topic).__name__}."
            raise DataError(msg)
        if "\0" in topic:
            msg = "The topic of a stored event contains a NUL character, which databases cannot store in a text."
            raise DataError(msg)
        if not topic.isascii() and not _is_text(topic):
            msg = "The topic of a stored event contains a lone surrogate, which no encoding can represent."
            raise DataError(msg)
        if not isinstance(version, int) or not -_MAX_VERSION <= version <= _MAX_VERSION:
            msg = "The originator_version of a stored event must be an int of at most 64 bits."
            raise DataError(msg)
        size = len(state)
        if size > max_bytes:
            msg = (
                f"The state of a stored event has {size} bytes; the limit is {max_bytes}. Store such data elsewhere, "
                "and a reference to it in the event."
            )
            raise DataError(msg)
        total += size
    return total


def check_uuid(originator_id: UUID | str) -> UUID:
    """Return the id; raises DataError unless it is a UUID."""
    if isinstance(originator_id, UUID):
        return originator_id
    msg = (
        f"The originator_id must be a UUID, not {type(originator_id).__name__}. For other ids, set "
        "ORIGINATOR_ID_TYPE=text and use new tables."
    )
    raise DataError(msg)


def check_text(originator_id: UUID | str) -> str:
    """Return the id as text; raises DataError unless it is a UUID or a valid str."""
    if isinstance(originator_id, UUID):
        return str(originator_id)
    if isinstance(originator_id, str) and _is_text(originator_id):
        return originator_id
    msg = (
        "The originator_id must be a str without NUL characters and lone surrogates, not "
        f"{type(originator_id).__name__}."
    )
    raise DataError(msg)


def check_tracking(tracking: Tracking) -> None:
    """Raise DataError for a tracking position that cannot be stored unchanged."""
    check_argument("application_name", tracking.application_name)
    numbers = {"notification_id": tracking.notification_id}
    if isinstance(tracking, ConditionalTracking):
        numbers["at_least"] = tracking.at_least
    for name, number in numbers.items():
        if not isinstance(number, int) or not -_MAX_VERSION <= number <= _MAX_VERSION:
            msg = f"The {name} of a tracking position must be an int of at most 64 bits."
            raise DataError(msg)


def check_argument(name: str, value: str) -> None:
    """Raise DataError unless a database can store the argument as text.

    A driver may fail after it has sent a part of the statement, which leaves the connection unusable.
    """
    if not isinstance(value, str) or not _is_text(value):
        msg = f"The {name} must be a str without NUL characters and lone surrogates (it is {type(value).__name__})."
        raise DataError(msg)


def _is_text(value: str) -> bool:
    if "\0" in value:
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False
