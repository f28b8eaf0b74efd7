"""A tenant's metadata: JSON that every database stores alike, checked before it is written, and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from tenancy.arguments import check_type
from tenancy.errors import InvalidArgument

__all__ = ["MAX_BYTES", "can_be_stored", "check_json", "equal", "matches", "plain_metadata"]

MAX_BYTES: Final = 64 * 1024
"""Maximum size of a tenant's metadata, as JSON."""
# Python and the databases parse JSON recursively.
_MAX_DEPTH: Final = 100
# Maximum length of a key in a message.
_SHOWN: Final = 40


def plain_metadata(metadata: object) -> dict[str, Any]:
    """Return metadata as the registry will return it, in dicts and lists only.

    Raises InvalidArgument, which names the place, for anything that some database cannot store and return unchanged,
    and for more than 64 KiB.
    """
    check_json("metadata", metadata)
    text = json.dumps(dict(cast("Mapping[str, Any]", metadata)))
    if len(text) > MAX_BYTES:
        msg = f"The metadata has {len(text)} bytes as JSON, and {MAX_BYTES} are allowed."
        raise InvalidArgument(msg, remedy="Store large values in an application, or outside, and their keys here.")
    return cast("dict[str, Any]", json.loads(text))


def check_json(name: str, value: object) -> None:
    """Raise InvalidArgument, which names the place, unless a value is an object of JSON that can be stored."""
    check_type(f"The {name}", value, Mapping, "a dict of JSON values")
    for fault in _faults(name, dict(cast("Mapping[Any, Any]", value)), _MAX_DEPTH):
        remedy = "Pass text, finite numbers, True, False, None, lists, and dicts whose keys are text."
        raise InvalidArgument(f"{fault}.", remedy=remedy)


def _faults(place: str, value: object, depth: int) -> Iterator[str]:
    """Yield what cannot be stored, with its place. Never shows a value: it may be a secret."""
    if not isinstance(value, dict | list | tuple):
        fault = _fault(value)
        if fault is not None:
            yield f"{place} {fault}"
        return
    if depth == 0:
        yield f"{place.partition('[')[0]} is nested more than {_MAX_DEPTH} levels deep, or contains itself"
        return
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict):
            yield from _faults_of_key(place, key)
        yield from _faults(f"{place}[{_shown(key)}]", each, depth - 1)


def _fault(value: object) -> str | None:
    """Return why a single value cannot be stored, or None."""
    if isinstance(value, str):
        return None if can_be_stored(value) else "contains a NUL or a lone surrogate, which a database cannot store"
    if isinstance(value, float):
        return None if math.isfinite(value) else "is NaN or infinite, which is not JSON"
    if isinstance(value, int):
        try:
            json.dumps(value)
        except ValueError:
            return "is an integer with more digits than can be read back"
        return None
    return None if value is None else f"is of type {type(value).__name__}, which is not JSON"


def _faults_of_key(place: str, key: object) -> Iterator[str]:
    if not isinstance(key, str):
        yield f"{place} has a key of type {type(key).__name__}, which is not text"
    elif not can_be_stored(key):
        yield f"{place} has the key {_shown(key)}, with a NUL or a lone surrogate, which a database cannot store"


def _shown(key: object) -> str:
    text = json.dumps(key)
    return text if len(text) <= _SHOWN else f'{text[:_SHOWN]}..."'


def can_be_stored(text: str) -> bool:
    """Return whether every database can store a text: without NUL and lone surrogates."""
    return not ("\0" in text or any("\ud800" <= character <= "\udfff" for character in text))


def matches(metadata: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Return whether metadata has all these keys and values.

    A text in ``where`` stands for the same text, or for the value whose JSON it is: "5" for "5" and for 5.
    """
    return all(key in metadata and _equals(metadata[key], wanted) for key, wanted in where.items())


def _equals(value: object, wanted: object) -> bool:
    if isinstance(wanted, str):
        if isinstance(value, str):
            return value == wanted
        try:
            wanted = json.loads(wanted)
        except ValueError:
            return False
    return equal(value, wanted)


def equal(value: object, other: object) -> bool:
    """Return whether two values are the same JSON: unlike in Python, 1 and true are not."""
    return json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
