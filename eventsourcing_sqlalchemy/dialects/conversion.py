"""Convert values to and from what databases send and receive."""

from __future__ import annotations

from uuid import UUID, SafeUUID

__all__ = ["milliseconds", "uuid_of_int"]

_set = object.__setattr__


def uuid_of_int(number: int) -> UUID:
    """Return the UUID with this number, three times as fast as its constructor."""
    value = object.__new__(UUID)
    _set(value, "int", number)
    _set(value, "is_safe", SafeUUID.unknown)
    return value


def milliseconds(seconds: float | None) -> str:
    """Return a duration for PostgreSQL's settings, where 0 means no limit."""
    return str(round((seconds or 0.0) * 1000))
