"""Inspect the engines that the package holds."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, Final

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.engines import leases as engines
from eventsourcing_sqlalchemy.engines.engine import SharedEngine
from eventsourcing_sqlalchemy.engines.leases import EngineLease
from tenancy.registry import cache as registry_cache

_LEVELS: Final = 6
_PER_LEVEL: Final = 8


def engines_in_use() -> list[SharedEngine]:
    """Return the engines that are still leased."""
    return list(engines._engines.values())  # noqa: SLF001


def forget_abandoned() -> None:
    """Give back what was leased by applications and fleets that nobody closed and nobody holds any more."""
    gc.collect()
    # What the next fleet, and the next application, does that leases or releases something.
    registry_cache.drain()
    engines._drain()  # noqa: SLF001 (as above)


def count_leases() -> dict[SharedEngine, int]:
    """Return the engines in use with the number of their leases."""
    return {shared: shared.leases for shared in engines_in_use()}


def wait_for_leases(before: Mapping[SharedEngine, int], seconds: float) -> dict[SharedEngine, int]:
    """Wait until no engine has more leases than before; return those that have after some seconds, and how many more.

    Abandoned applications are collected. A thread that is about to end may hold one for a moment longer.
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
    added = {shared: leases - before.get(shared, 0) for shared, leases in count_leases().items()}
    return {shared: count for shared, count in added.items() if count > 0}


def describe_leases(left: Mapping[SharedEngine, int]) -> str:
    """Return what is known of engines that are still leased: which applications leased them, and what refers to those.

    A lease without an object was lost: nothing can release it any more.
    """
    lines = []
    for shared, count in left.items():
        objects = len([lease for lease in _objects(EngineLease) if _is_of(lease, shared)])
        lines.append(f"{shared}: {count} left of {shared.leases} leases, with {objects} lease objects")
        owners = _owners(shared)
        while owners:
            owner = owners.pop()
            lines.append(f"  application {owner.application!r}, referred to by:")
            lines += [f"    {line}" for line in _referrers(owner)]
    return "\n".join(lines)


def release_all(left: Iterable[SharedEngine]) -> None:
    """Close what still leases engines, and dispose of them."""
    for shared in left:
        for owner in _owners(shared):
            owner.close()
        for key in [key for key, each in engines._engines.items() if each is shared]:  # noqa: SLF001
            del engines._engines[key]  # noqa: SLF001 (its leases were lost)
            shared.dispose()


def _referrers(target: object) -> list[str]:
    """Return the types of what refers to an object, of what refers to that, and so on: a line for each level."""
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
        if each._lease is not None and _is_of(each._lease, shared)  # noqa: SLF001
    ]


def _is_of(lease: EngineLease, shared: SharedEngine) -> bool:
    return lease.shared is shared and not lease._is_released  # noqa: SLF001


def _objects(cls: type[Any]) -> list[Any]:
    # isinstance() would call __class__ of lazy proxies.
    return [each for each in gc.get_objects() if issubclass(type(each), cls)]
