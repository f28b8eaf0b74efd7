"""Quotas: how much a tenant may record, as its metadata says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from tenancy.errors import InvalidArgument

__all__ = ["Quotas", "check_quotas", "quotas_fault", "quotas_of"]

_KEY: Final = "quotas"
_MOST: Final = 2**63 - 1
_LEAST_RATE: Final = 0.001
_MOST_RATE: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What a tenant may record in all its applications together; None for no limit.

    Raises InvalidArgument for a limit that cannot be used.
    """

    events: int | None = None
    """Number of events."""
    events_per_second: float | None = None
    """Events per second: up to a second's worth at once, then at this rate."""
    bytes: int | None = None
    """Total size of the events' states as they are stored."""

    def __post_init__(self) -> None:
        for name in _NAMES:
            fault = _fault(name, getattr(self, name))
            if fault is not None:
                raise InvalidArgument(f"{fault}.", remedy="Pass such a number, or None for no limit.")

    def __bool__(self) -> bool:
        return any(getattr(self, name) is not None for name in _NAMES)


_NAMES: Final = tuple(field.name for field in fields(Quotas))


def quotas_of(metadata: Mapping[str, Any]) -> Quotas | None:
    """Return the quotas in a tenant's metadata; None without any, and without any that can be used."""
    found = metadata.get(_KEY)
    if not found or quotas_fault(metadata) is not None:
        return None
    return Quotas(**found) or None


def quotas_fault(metadata: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the quotas in metadata, or None."""
    found = metadata.get(_KEY)
    if found is None:
        return None
    if not isinstance(found, Mapping):
        return f"metadata[{_KEY!r}] is not an object with the keys {', '.join(_NAMES)}"
    for name, value in found.items():
        if name not in _NAMES:
            return f"metadata[{_KEY!r}] has the key {str(name)[:40]!a}, and the quotas are {', '.join(_NAMES)}"
        fault = _fault(f"metadata[{_KEY!r}][{name!r}]", value, name)
        if fault is not None:
            return fault
    return None


def check_quotas(metadata: Mapping[str, Any]) -> None:
    """Raise InvalidArgument for metadata with quotas that cannot be used."""
    fault = quotas_fault(metadata)
    if fault is not None:
        remedy = "Pass for example {'quotas': {'events': 10000, 'events_per_second': 5, 'bytes': 1000000}}."
        raise InvalidArgument(f"{fault}.", remedy=remedy)


def _fault(place: str, value: object, name: str | None = None) -> str | None:
    if value is None:
        return None
    if (name or place) == "events_per_second":
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and _LEAST_RATE <= value <= _MOST_RATE:  # type: ignore[operator]
            return None
        return f"{place} is not a number from {_LEAST_RATE} to {_MOST_RATE}"
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
        return None
    return f"{place} is not a whole number from 0 to 2^63 - 1"
