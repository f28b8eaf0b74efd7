"""Which engines the package holds: what users cannot see, and the tests must."""

import gc
from typing import Any

from eventsourcing_sqlalchemy.engines.engine import SharedEngine
from eventsourcing_sqlalchemy.engines.leases import engines
from eventsourcing_sqlalchemy.shared_resources import SharedResources


def engines_in_use() -> list[SharedEngine]:
    """Return the engines that some application has leased and not given back."""
    return list(engines)


def lease_count(resources: SharedResources[Any]) -> int:
    """Return how many leases of the resources are not released."""
    return sum(resources._counts.values())  # noqa: SLF001 (users cannot see it)


def forget_abandoned() -> None:
    """Give back what was leased by applications that nobody closed and nobody holds any more."""
    gc.collect()
    engines.drain()
