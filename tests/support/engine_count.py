"""Inspect the engines that the package holds."""

import gc

from eventsourcing_sqlalchemy.engines import leases as engines
from eventsourcing_sqlalchemy.engines.engine import SharedEngine


def engines_in_use() -> list[SharedEngine]:
    """Return the engines that are still leased."""
    return list(engines._engines.values())  # noqa: SLF001


def forget_abandoned() -> None:
    """Release the leases of applications that were garbage-collected without being closed."""
    gc.collect()
    engines._drain()  # noqa: SLF001 (the next lease or release does the same)
