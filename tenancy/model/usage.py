"""How much a tenant has recorded: events, their bytes, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

__all__ = ["Count", "Usage", "total"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The events of one application of a tenant, up to a notification id."""

    position: int
    """All events up to this id are counted, and later ones are not."""
    events: int
    bytes: int
    first_at: datetime
    """When a rollup first found events."""
    last_at: datetime
    """When a rollup last found new events."""
    window_at: datetime
    """The start of the time over which the rate is measured."""
    window_events: int
    """The events counted then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a tenant has recorded in all its applications, as counted by rollups."""

    tenant: str
    """The tenant's slug."""
    tenant_id: UUID
    events: int
    """Number of recorded events, also of those deleted since."""
    bytes: int
    """Total size of their states as stored: compressed and encrypted, without keys, indexes, snapshots and views."""
    first_active_at: datetime | None
    """When a rollup first found events; None for a tenant without events."""
    last_active_at: datetime | None
    """When a rollup last found new events."""
    rate: float | None
    """Events per second, over up to two minutes while the tenant is active, and later since its last activity; None
    until two rollups have found events.
    """


def total(slug: str, tenant_id: UUID, counts: Iterable[Count], now: datetime) -> Usage:
    """Return the usage of a tenant from the counts of its applications."""
    counts = list(counts)
    measured = [each for each in counts if each.window_at < each.last_at]
    return Usage(
        tenant=slug,
        tenant_id=tenant_id,
        events=sum(each.events for each in counts),
        bytes=sum(each.bytes for each in counts),
        first_active_at=min((each.first_at for each in counts), default=None),
        last_active_at=max((each.last_at for each in counts), default=None),
        rate=sum(_rate(each, now) for each in measured) if measured else None,
    )


def _rate(count: Count, now: datetime) -> float:
    return (count.events - count.window_events) / max((now - count.window_at).total_seconds(), 1.0)
