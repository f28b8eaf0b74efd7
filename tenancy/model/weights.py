"""The weight of a tenant: its share of a runner's turns, as its metadata says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tenancy.errors import InvalidArgument

__all__ = ["DEFAULT_WEIGHT", "check_weight", "weight_fault", "weight_of"]

DEFAULT_WEIGHT: Final = 1.0
_KEY: Final = "weight"
_LEAST: Final = 0.01
_MOST: Final = 100.0


def weight_of(metadata: Mapping[str, Any]) -> float:
    """Return the weight in a tenant's metadata; 1 without one that can be used."""
    weight = metadata.get(_KEY)
    return DEFAULT_WEIGHT if weight is None or not _is_weight(weight) else float(weight)


def weight_fault(metadata: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the weight in metadata, or None."""
    weight = metadata.get(_KEY)
    if weight is None or _is_weight(weight):
        return None
    return f"metadata[{_KEY!r}] is not a number from {_LEAST:g} to {_MOST:g}"


def check_weight(metadata: Mapping[str, Any]) -> None:
    """Raise InvalidArgument for metadata with a weight that cannot be used."""
    fault = weight_fault(metadata)
    if fault is not None:
        remedy = "Pass such a number, where 2 means twice the turns of other tenants; or omit it, which means 1."
        raise InvalidArgument(f"{fault}.", remedy=remedy)


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _LEAST <= value <= _MOST
