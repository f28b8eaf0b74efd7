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


class Rollup:
    """Counts the events of many tables, whose last ids it reads a thousand at a time. For one thread."""

    def __init__(self, datastore: SQLAlchemyDatastore, store: CountStore) -> None:
        self._datastore = datastore
        self._store = store
        self._marks = HighWaterMarks(datastore)
        # Counts that could not be stored, so that the same events are not read twice.
        self._unstored: dict[CountKey, Count] = {}

    def run(self, tables: Mapping[CountKey, TableName]) -> dict[CountKey, Count]:
        """Count the events of these tables, and return the counts; tables without events have none.

        A count that cannot be stored is right, too: another process has stored a later one, or a later rollup will.
        """
        # Before the last ids, which are then never behind a stored position, unless the table was replaced.
        stored = self._store.read({tenant_id for tenant_id, _ in tables})
        counts = {key: count for key in tables if (count := self._latest(key, stored)) is not None}
        last_ids = self._marks.read(list(tables.values()))
        after: dict[TableName, int] = {}
        for key, table in tables.items():
            position, last = counts[key].position if key in counts else 0, last_ids.get(table)
            if last is not None and last != position:
                after[table] = position if position < last else 0
        growth = read_growth(self._datastore, after)
        now = datetime.now(UTC)
        for key, table in tables.items():
            grown = growth.get(table)
            if grown is not None:
                is_replaced = key in counts and after[table] < counts[key].position
                if grown.events or is_replaced:
                    counts[key] = _grown(counts.get(key), grown, now, is_replaced=is_replaced)
        self._save(counts, stored)
        return counts

    def _latest(self, key: CountKey, stored: Mapping[CountKey, Count]) -> Count | None:
        count, mine = stored.get(key), self._unstored.get(key)
        return mine if mine is not None and (count is None or mine.position > count.position) else count

    def _save(self, counts: Mapping[CountKey, Count], stored: Mapping[CountKey, Count]) -> None:
        advances: dict[CountKey, Advance] = {}
        for key, count in counts.items():
            before = stored.get(key)
            if count != before:
                advances[key] = (None if before is None else before.position), count
        saved = self._store.advance(advances) if advances else set()
        for key in counts:
            self._unstored.pop(key, None)
        self._unstored |= {key: counts[key] for key in advances.keys() - saved}


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
