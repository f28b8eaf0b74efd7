"""Inspect the engines that the package holds."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, Final

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.engines.engine import SharedEngine
from eventsourcing_sqlalchemy.engines.references import engines
from eventsourcing_sqlalchemy.shared_resources import Reference, SharedResources
from tenancy.registry.cache import registry_caches

_LEVELS: Final = 6
_PER_LEVEL: Final = 8


def engines_in_use() -> list[SharedEngine]:
    """Return the engines that are still in use."""
    return list(engines)


def counts(resources: SharedResources[Any]) -> dict[Any, int]:
    """Return the resources in use with the number of their references."""
    return {shared.resource: shared.count for shared in resources._shared.values()}  # noqa: SLF001


def forget_abandoned() -> None:
    """Release the references of applications and fleets that were garbage-collected without being closed."""
    gc.collect()
    # The next acquisition or release of a fleet or application does the same.
    registry_caches.drain()
    engines.drain()


def count_references() -> dict[SharedEngine, int]:
    """Return the engines in use with the number of their references."""
    return counts(engines)


def wait_for_references(before: Mapping[SharedEngine, int], seconds: float) -> dict[SharedEngine, int]:
    """Wait until no engine has more references than before; after the timeout, return those that have.

    Abandoned applications are collected. An ending thread may briefly keep one alive.
    """
    deadline = time.monotonic() + seconds
    while left := _added(before):
        forget_abandoned()
        left = _added(before)
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return left


def _added(before: Mapping[SharedEngine, int]) -> dict[SharedEngine, int]:
    added = {shared: references - before.get(shared, 0) for shared, references in count_references().items()}
    return {shared: count for shared, count in added.items() if count > 0}


def describe_references(left: Mapping[SharedEngine, int]) -> str:
    """Describe engines that are still in use: the applications that use them, and the objects that refer to those.

    A reference without an object is lost: nothing can release it.
    """
    lines = []
    for shared, count in left.items():
        total, objects = counts(engines)[shared], [each for each in _objects(Reference) if _is_of(each, shared)]
        lines.append(f"{shared}: {count} left of {total} references, with {len(objects)} reference objects")
        owners = _owners(shared)
        while owners:
            owner = owners.pop()
            lines.append(f"  application {owner.application!r}, referred to by:")
            lines += [f"    {line}" for line in _referrers(owner)]
    return "\n".join(lines)


def release_all(left: Iterable[SharedEngine]) -> None:
    """Close the applications that use them, and dispose of the engines."""
    for shared in left:
        for owner in _owners(shared):
            owner.close()
        for key in [key for key, each in engines._shared.items() if each.resource is shared]:  # noqa: SLF001
            del engines._shared[key]  # noqa: SLF001 (its references were lost)
            shared.dispose()


def _referrers(target: object) -> list[str]:
    """Return the types of an object's referrers, of their referrers, and so on: one line per level."""
    lines = []
    current = [target]
    seen = {id(target)}
    for _ in range(_LEVELS):
        found = [each for each in gc.get_referrers(*current) if id(each) not in seen and not _is_our_own(each, current)]
        if not found:
            break
        seen.update(map(id, found))
        counts = Counter(map(_describe, found))
        lines.append(", ".join(f"{count} {what}" if count > 1 else what for what, count in counts.most_common()))
        current = found[:_PER_LEVEL]
    return lines


def _is_our_own(referrer: object, current: object) -> bool:
    return referrer is current or (isinstance(referrer, FrameType) and referrer.f_code.co_filename == __file__)


def _describe(referrer: object) -> str:
    if isinstance(referrer, FrameType):
        return f"frame of {referrer.f_code.co_qualname}, line {referrer.f_lineno}"
    return f"{type(referrer).__module__}.{type(referrer).__qualname__}"


def _owners(shared: SharedEngine) -> list[SQLAlchemyDatastore]:
    return [
        each
        for each in _objects(SQLAlchemyDatastore)
        if each._reference is not None and _is_of(each._reference, shared)  # noqa: SLF001
    ]


def _is_of(reference: Reference[SharedEngine], shared: SharedEngine) -> bool:
    return reference.resource is shared and not reference.is_released


def _objects(cls: type[Any]) -> list[Any]:
    # isinstance() would call __class__ of lazy proxies.
    return [each for each in gc.get_objects() if issubclass(type(each), cls)]
