"""Write events to SQLite: one event in one statement, several in a write transaction that the caller begins.

Ordering needs no lock besides SQLite's own: there is one writer at a time, and it commits before the next one gets an
id. Ids need no check: SQLite generates only ids above all in the table, whatever the sequence's value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import StoredEvent, Tracking

from eventsourcing_sqlalchemy.dialects.protocols import Batch, EventWriter, Executor
from eventsourcing_sqlalchemy.dialects.tracking import ConditionalTracking, tracking_conflict
from eventsourcing_sqlalchemy.dialects.validation import check_events, check_tracking


class SQLiteEventWriter(EventWriter):
    """Writes to one recorder's tables; see :class:`EventWriter`."""

    def __init__(
        self,
        *,
        events: str | None,
        ordered: bool,
        tracking: str | None,
        bind_originator_id: Callable[[UUID | str], Any],
        max_event_bytes: int,
    ) -> None:
        self._bind_originator_id = bind_originator_id
        self._max_event_bytes = max_event_bytes
        self._ordered = ordered
        self._insert = f"INSERT INTO {events} (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?)"
        self._insert_tracking = (
            f"INSERT INTO {tracking} AS x (application_name, notification_id) VALUES (?, ?) "
            "ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id "
            "WHERE x.notification_id < excluded.notification_id RETURNING 1"
        )
        self._update_tracking = (
            f"UPDATE {tracking} SET notification_id = ? "
            "WHERE application_name = ? AND notification_id >= ? AND notification_id < ? RETURNING 1"
        )

    def pack(self, events: Sequence[StoredEvent], tracking: Tracking | None) -> Batch:
        size = check_events(events, self._max_event_bytes)
        if tracking is not None:
            check_tracking(tracking)
        bind = self._bind_originator_id
        rows = [(bind(event.originator_id), event.originator_version, event.topic, event.state) for event in events]
        return self._batch(events, tracking, size, rows)

    def join(self, batches: Sequence[Batch]) -> Batch:
        events = [event for batch in batches for event in batch.events]
        rows = [row for batch in batches for row in batch.columns]
        return self._batch(events, None, sum(batch.size for batch in batches), rows)

    def write(self, executor: Executor, batch: Batch, last_id: int | None = None) -> list[int]:
        tracking, rows = batch.tracking, batch.columns
        if tracking is not None:
            self._write_tracking(executor, tracking)
        if not rows:
            return []
        if len(rows) == 1:
            executor.fetch(self._insert, rows[0])
        else:
            executor.run_many(self._insert, rows)
        if not self._ordered:
            return []
        # The connection is exclusively ours, and this is faster than RETURNING. Ids of one transaction are consecutive,
        # because no other writer gets an id meanwhile.
        last: int = executor.fetch("SELECT last_insert_rowid()")[0][0]
        return list(range(last - len(rows) + 1, last + 1))

    def _write_tracking(self, executor: Executor, tracking: Tracking) -> None:
        name, number = tracking.application_name, tracking.notification_id
        if isinstance(tracking, ConditionalTracking):
            rows = executor.fetch(self._update_tracking, (number, name, tracking.at_least, number))
        else:
            rows = executor.fetch(self._insert_tracking, (name, number))
        if not rows:
            raise tracking_conflict(tracking)

    def _batch(
        self,
        events: Sequence[StoredEvent],
        tracking: Tracking | None,
        size: int,
        rows: Sequence[tuple[Any, ...]],
    ) -> Batch:
        return Batch(
            events,
            tracking,
            size,
            needs_transaction=len(rows) + (tracking is not None) > 1,
            can_join=tracking is None and self._ordered and bool(rows),
            columns=tuple(rows),
        )
