"""Which engines the package holds: what users cannot see, and the tests must."""

import gc

from eventsourcing_sqlalchemy.engines import leases as engines
from eventsourcing_sqlalchemy.engines.engine import SharedEngine


def engines_in_use() -> list[SharedEngine]:
    """Return the engines that some application has leased and not given back."""
    return list(engines._engines.values())  # noqa: SLF001


def forget_abandoned() -> None:
    """Give back what was leased by applications that nobody closed and nobody holds any more."""
    gc.collect()
    engines._drain()  # noqa: SLF001 (what the next application does that leases or releases an engine)
