"""Write events to PostgreSQL, in two forms with the same result.

*Statement*: one autocommitted statement, one round trip. Several events are sent as arrays, a single one as plain
parameters, which are faster to plan. *Rows*: a transaction with a lock and multi-row VALUES, for batches whose arrays
would be too large.

Readers follow a table in id order, so an id must never become visible after a higher one: readers would miss it. A
sequence generates ids before the commit, so writers of one table queue on an advisory lock until the commit. It blocks
only the table's other writers. The published package locks the table instead (EXCLUSIVE). That lock conflicts with the
ROW EXCLUSIVE lock of our INSERT, so both packages can write to one table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple
from uuid import UUID

from eventsourcing.persistence import PersistenceError, StoredEvent, Tracking

from eventsourcing_sqlalchemy.dialects.postgresql import sequences as postgresql_sequences
from eventsourcing_sqlalchemy.dialects.postgresql.arrays import Arrays
from eventsourcing_sqlalchemy.dialects.protocols import Batch, EventWriter, Executor, IdConflict
from eventsourcing_sqlalchemy.dialects.tracking import ConditionalTracking, tracking_conflict
from eventsourcing_sqlalchemy.dialects.validation import check_events, check_tracking
from eventsourcing_sqlalchemy.errors import constraint, sqlstate
from eventsourcing_sqlalchemy.naming import EVENTS_INDEX_SUFFIX, TableName

# The server parses arrays sent as text, which is fast for small states, but takes many times the memory of large ones.
MAX_ARRAY_BYTES = 4 * 2**20
_MAX_ROWS_PER_STATEMENT = 1000
# Some drivers inline a state into the statement, at two characters per byte, and the server's parser doubles its
# literal buffer, up to 1 GiB.
_MAX_LITERAL_BYTES = 128 * 2**20
_COLUMNS = "(originator_id, originator_version, topic, state)"


# The statement itself rejects an id that is not above the last one, and then writes nothing. It compares the id with
# the last one that the caller knows. Only if the caller knows none does it name the table: opening the table and its
# index for a lookup costs the server a tenth of a prepared append, even when the lookup is skipped. It does not see
# commits since it began, but those writers checked their own ids. SQL has no expression that raises a custom error.
# width_bucket() raises one with a code that nothing else in the statement can cause.
_CHECKED_ID = "id + CASE WHEN id > {last_id} THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id"
_OF_CALLER = "%s::bigint"
_OF_TABLE = "coalesce((SELECT o.id FROM {events} AS o ORDER BY o.id DESC LIMIT 1), 0)"
_LOW_ID = "2201G"
_UNIQUE_VIOLATION = "23505"


class _Inserts(NamedTuple):
    """INSERT statements: events alone, with a tracking position, with a conditional tracking position."""

    alone: str
    tracked: str = ""
    conditional: str = ""


class _Statements(NamedTuple):
    """Statements whose ids are checked in the same way."""

    one: _Inserts
    many: _Inserts
    returning: str
    """The end of an INSERT of rows."""


class PostgreSQLEventWriter(EventWriter):
    """Writes to one recorder's tables; see :class:`EventWriter`."""

    def __init__(
        self,
        *,
        table: TableName | None,
        events: str | None,
        lock_key: int | None,
        tracking: str | None,
        originator_id_type: Literal["uuid", "text"],
        bind_originator_id: Callable[[UUID | str], str],
        lock_timeout: str,
        max_event_bytes: int,
        arrays: Arrays,
    ) -> None:
        self._table = table
        self._arrays = arrays
        self._bind_originator_id = bind_originator_id
        self._max_event_bytes = max_event_bytes
        self._ordered = lock_key is not None
        self._cast = f"%s::{originator_id_type}"

        # Each CTE must be referenced by the next one: PostgreSQL skips an unreferenced one, and would take no lock.
        settings = f"c AS MATERIALIZED (SELECT set_config('lock_timeout', '{lock_timeout}', true))"
        upsert = (
            f"INSERT INTO {tracking} AS x (application_name, notification_id) SELECT %s, %s::bigint FROM c "
            "ON CONFLICT (application_name) DO UPDATE SET notification_id = EXCLUDED.notification_id "
            "WHERE x.notification_id < EXCLUDED.notification_id RETURNING 1"
        )
        # UPDATE never inserts: the row may be deleted by a concurrent transaction while this one waits for it.
        update = (
            f"UPDATE {tracking} AS x SET notification_id = %s::bigint FROM c WHERE x.application_name = %s "
            "AND x.notification_id >= %s::bigint AND x.notification_id < %s::bigint RETURNING 1"
        )
        into = f"INSERT INTO {events} {_COLUMNS}"
        one = f"{into} SELECT {self._cast}, %s::bigint, %s::text, %s::bytea"
        many = f"{into} SELECT u.i, u.v, u.t, u.s FROM"
        unnest = f"unnest({self._cast}[], %s::bigint[], %s::text[], %s::bytea[]) WITH ORDINALITY AS u (i, v, t, s, n)"
        self._insert_rows = f"{into} VALUES "
        if lock_key is None:
            unchecked = _Statements(_Inserts(one), _Inserts(f"{many} {unnest} ORDER BY u.n"), "")
            self._with_last_id = self._without_last_id = unchecked
        else:
            take_lock = f"SELECT pg_advisory_xact_lock({lock_key}) FROM"
            self._lock = f"WITH {settings} {take_lock} c"
            before = f"WITH {settings}, l AS MATERIALIZED ({take_lock} c)"
            # Lock order: tracking first. A conflict is then detected before the lock is taken, without deadlocks.
            tracked, conditional = (
                f"WITH {settings}, t AS ({track}), l AS MATERIALIZED ({take_lock} t)" for track in (upsert, update)
            )

            def checked(last_id: str) -> _Statements:
                returning = f" RETURNING {_CHECKED_ID.format(last_id=last_id)}"
                one_event, many_events = (
                    _Inserts(
                        f"{before} {insert}",
                        *(
                            f"{with_tracking}, i AS ({insert}) SELECT 0 FROM t UNION ALL SELECT id FROM i"
                            for with_tracking in (tracked, conditional)
                        ),
                    )
                    for insert in (f"{one} FROM l{returning}", f"{many} l, {unnest} ORDER BY u.n{returning}")
                )
                return _Statements(one_event, many_events, returning)

            self._with_last_id = checked(_OF_CALLER)
            self._without_last_id = checked(_OF_TABLE.format(events=events))
        self._insert_tracking = f"WITH {settings} {upsert}"
        self._update_tracking = f"WITH {settings} {update}"

    def pack(self, events: Sequence[StoredEvent], tracking: Tracking | None) -> Batch:
        size = check_events(events, self._max_event_bytes)
        if tracking is not None:
            check_tracking(tracking)
        if size > MAX_ARRAY_BYTES:
            return Batch(events, tracking, size, needs_transaction=True, can_join=False)
        columns = self._values(events[0]) if len(events) == 1 else self._arrays.pack(events)
        can_join = tracking is None and self._ordered and bool(events)
        return Batch(events, tracking, size, needs_transaction=False, can_join=can_join, columns=columns)

    def _values(self, event: StoredEvent) -> tuple[str, int, str, bytes]:
        return (
            self._bind_originator_id(event.originator_id),
            int(event.originator_version),
            event.topic,
            bytes(event.state),
        )

    def join(self, batches: Sequence[Batch]) -> Batch:
        if len(batches) == 1:
            return batches[0]
        pack = self._arrays.pack
        packed = [batch.columns if len(batch.events) > 1 else pack(batch.events) for batch in batches]
        return Batch(
            [event for batch in batches for event in batch.events],
            None,
            sum(batch.size for batch in batches),
            needs_transaction=False,
            can_join=True,
            columns=self._arrays.join(packed),
        )

    def write(self, executor: Executor, batch: Batch, last_id: int | None = None) -> list[int]:
        events, tracking = batch.events, batch.tracking
        if not events:
            if tracking is not None:
                self._write_tracking(executor, tracking)
            return []
        last = () if last_id is None or not self._ordered else (last_id,)
        statements = self._with_last_id if last else self._without_last_id
        if batch.needs_transaction:
            return self._write_rows(executor, batch, statements.returning, last)
        is_one = len(events) == 1
        inserts = statements.one if is_one else statements.many
        values = batch.columns if is_one else self._arrays.parameters(batch.columns, len(events))
        if tracking is None:
            rows = executor.fetch(inserts.alone, (*values, *last))
            # RETURNING guarantees no order. Ids are generated in the order of ORDER BY.
            return sorted([row[0] for row in rows])
        statement = inserts.conditional if isinstance(tracking, ConditionalTracking) else inserts.tracked
        ids = sorted([row[0] for row in executor.fetch(statement, (*_tracking_values(tracking), *values, *last))])
        if not ids:
            raise tracking_conflict(tracking)
        return ids[1:]

    def _write_tracking(self, executor: Executor, tracking: Tracking) -> None:
        is_conditional = isinstance(tracking, ConditionalTracking)
        statement = self._update_tracking if is_conditional else self._insert_tracking
        if not executor.fetch(statement, _tracking_values(tracking)):
            raise tracking_conflict(tracking)

    def _write_rows(self, executor: Executor, batch: Batch, returning: str, last: Sequence[int]) -> list[int]:
        if batch.tracking is not None:
            self._write_tracking(executor, batch.tracking)
        if self._ordered:
            executor.fetch(self._lock)
        ids: list[int] = []
        for chunk in _chunks(batch.events):
            values: list[str] = []
            parameters: list[Any] = []
            for event in chunk:
                pieces = _pieces(event.state)
                state = " || ".join(["%s::bytea"] * len(pieces))
                values.append(f"({self._cast}, %s, %s, {state})")
                parameters += (
                    self._bind_originator_id(event.originator_id),
                    event.originator_version,
                    event.topic,
                    *pieces,
                )
            rows = executor.fetch(self._insert_rows + ", ".join(values) + returning, (*parameters, *last))
            ids += sorted(row[0] for row in rows)
        return ids

    def id_conflict(self, error: PersistenceError) -> IdConflict | None:
        if not self._ordered:
            return None
        code = sqlstate(error)
        if code == _LOW_ID:
            return "low"
        # This package and the published one both use this suffix for the index on versions.
        is_version_index = (constraint(error) or "").endswith(EVENTS_INDEX_SUFFIX)
        return "taken" if code == _UNIQUE_VIOLATION and not is_version_index else None

    def find_sequence_behind(self, executor: Executor, error: PersistenceError) -> str | None:
        assert self._table is not None
        if self.id_conflict(error) == "taken" and not postgresql_sequences.is_index_of_ids(
            executor, self._table, constraint(error) or ""
        ):
            return None
        return postgresql_sequences.name_of_sequence(executor, self._table)


def _tracking_values(tracking: Tracking) -> tuple[Any, ...]:
    name, number = tracking.application_name, tracking.notification_id
    if isinstance(tracking, ConditionalTracking):
        return (number, name, tracking.at_least, number)
    return (name, number)


def _pieces(state: bytes) -> list[bytes]:
    """Split a state into pieces that fit into literals of a statement."""
    if len(state) <= _MAX_LITERAL_BYTES:
        return [bytes(state)]
    view = memoryview(state)
    return [bytes(view[start : start + _MAX_LITERAL_BYTES]) for start in range(0, len(state), _MAX_LITERAL_BYTES)]


def _chunks(events: Sequence[StoredEvent]) -> Iterator[Sequence[StoredEvent]]:
    """Yield chunks of events that fit into a statement; a large event gets its own chunk."""
    start, size = 0, 0
    for index, event in enumerate(events):
        if index > start and (size + len(event.state) > MAX_ARRAY_BYTES or index - start == _MAX_ROWS_PER_STATEMENT):
            yield events[start:index]
            start, size = index, 0
        size += len(event.state)
    if start < len(events):
        yield events[start:]
