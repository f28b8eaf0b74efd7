"""The rollup: count the events that tables have got since the last one, and store the counts in the registry.

A count is stored together with the id up to which it counts, and only if the stored id is still the one that it was
counted from. Events become visible in the order of their ids, so no event is counted twice or left out: whether a
process is killed at any point, or several roll up the same tables at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from eventsourcing_sqlalchemy.high_water import Growth, HighWaterMarks, read_growth
from tenancy.model.usage import Count

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from eventsourcing_sqlalchemy.naming import TableName
    from tenancy.registry.usage import Advance, CountKey, CountStore

__all__ = ["Rollup"]

# A rate is measured since the last rollup that is so long ago, or over up to twice this time.
_WINDOW: Final = timedelta(seconds=60)
# How often the counts that other processes have advanced meanwhile are read and counted again.
_ATTEMPTS: Final = 3


class Rollup:
    """Counts the events of many tables, whose last ids it reads a thousand at a time. For one thread."""

    def __init__(self, datastore: SQLAlchemyDatastore, store: CountStore) -> None:
        self._datastore = datastore
        self._store = store
        self._marks = HighWaterMarks(datastore)

    def run(self, tables: Mapping[CountKey, TableName]) -> dict[CountKey, Count]:
        """Count the events of these tables, and return the counts; tables without events have none."""
        counts: dict[CountKey, Count] = {}
        left = tables
        for _ in range(_ATTEMPTS):
            left = self._count(left, counts)
            if not left:
                break
        return counts

    def _count(
        self, tables: Mapping[CountKey, TableName], counts: dict[CountKey, Count]
    ) -> Mapping[CountKey, TableName]:
        """Add counts, and return the tables whose counts could not be stored."""
        # Before the last ids, which are then never behind a stored position, unless the table was replaced.
        known = self._store.read({tenant_id for tenant_id, _ in tables})
        last_ids = self._marks.read(list(tables.values()))
        after: dict[TableName, int] = {}
        for key, table in tables.items():
            count, last = known.get(key), last_ids.get(table)
            if count is not None:
                counts[key] = count
            if last is not None and last != (0 if count is None else count.position):
                after[table] = 0 if count is None or last < count.position else count.position
        growth = read_growth(self._datastore, after)
        now = datetime.now(UTC)
        advances: dict[CountKey, Advance] = {}
        for key, table in tables.items():
            grown, count = growth.get(table), known.get(key)
            is_replaced = count is not None and after.get(table, count.position) < count.position
            if grown is None or not (grown.events or is_replaced):
                continue
            counts[key] = _grown(count, grown, now, is_replaced=is_replaced)
            advances[key] = (None if count is None else count.position), counts[key]
        stored = self._store.advance(advances) if advances else set()
        return {key: tables[key] for key in advances.keys() - stored}


def _grown(count: Count | None, growth: Growth, now: datetime, *, is_replaced: bool) -> Count:
    events, size = growth.events, growth.bytes
    if count is None or is_replaced:
        first = now if count is None else count.first_at
        return Count(
            position=growth.last_id,
            events=events,
            bytes=size,
            first_at=first,
            last_at=now,
            window_at=now,
            window_events=events,
        )
    window = (count.window_at, count.window_events)
    is_first = count.window_at == count.last_at
    if is_first or now - count.last_at >= _WINDOW or now - count.window_at >= 2 * _WINDOW:
        window = (count.last_at, count.events)
    return replace(
        count,
        position=growth.last_id,
        events=count.events + events,
        bytes=count.bytes + size,
        last_at=now,
        window_at=window[0],
        window_events=window[1],
    )
