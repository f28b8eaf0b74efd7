"""How events are written to PostgreSQL, in two forms that give the same result.

*Statement*: one statement, one round trip, which commits by itself. Several events are sent as arrays, a single one as
it is, which is sooner planned. *Rows*: a transaction of a lock and multi-row VALUES, for batches whose arrays would
become too large. ``form="rows"`` makes it the form of all batches.

Readers follow a table by its ids, so an id must never become visible after a higher one: a gap that is filled later is
never read. A sequence gives out ids before the commit, hence writers of one table take turns, by an advisory lock that
lasts until the commit. It blocks the other writers of that table and nothing else. The published package locks the
table itself (EXCLUSIVE); its lock and the ROW EXCLUSIVE lock of our INSERT exclude each other, so both can write to a
table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

from eventsourcing_sqlalchemy.dialects.postgresql import sequences as postgresql_sequences
from eventsourcing_sqlalchemy.dialects.protocols import Batch, EventWriter, Executor, PendingGap
from eventsourcing_sqlalchemy.dialects.validation import (
    ConditionalTracking,
    check_events,
    check_tracking,
    tracking_conflict,
)
from eventsourcing_sqlalchemy.errors import constraint, sqlstate
from eventsourcing_sqlalchemy.naming import EVENTS_INDEX_SUFFIX

if TYPE_CHECKING:
    from eventsourcing.persistence import PersistenceError, StoredEvent, Tracking

    from eventsourcing_sqlalchemy.dialects.postgresql.arrays import Arrays
    from eventsourcing_sqlalchemy.naming import TableName

# Arrays are written as text and parsed by the server, which is fast for small states and needs many times their size in
# memory for large ones.
MAX_ARRAY_BYTES = 4 * 2**20
_MAX_ROWS_PER_STATEMENT = 1000
# Some drivers write a state into the statement, two characters for a byte, and the server's parser doubles its buffer
# for a literal until it would exceed 1 GiB.
_MAX_LITERAL_BYTES = 128 * 2**20
_COLUMNS = "(originator_id, originator_version, topic, state)"


# An id that is not above the last one is refused by the statement itself, which then writes nothing. The table is only
# looked at when the id is not above the one that the caller knows: the first time, and after the table was emptied.
# What others have committed since the statement began is not seen; they checked their own ids. SQL has no expression
# that raises an error of one's own: width_bucket() does, with a code that nothing else in the statement can cause.
_CHECKED_ID = (
    "id + CASE WHEN id > %s::bigint OR id > coalesce((SELECT o.id FROM {events} AS o ORDER BY o.id DESC LIMIT 1), 0) "
    "THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id"
)
_NO_ID_IS_KNOWN = 2**63 - 1
_ID_IS_LOW = "2201G"
_IS_TAKEN = "23505"


class _Inserts(NamedTuple):
    """The statements that write events: alone, and together with a tracking position, also with a conditional one."""

    alone: str
    tracked: str = ""
    conditional: str = ""


class PostgreSQLEventWriter(EventWriter):
    """Writes to the tables of one recorder; see :class:`EventWriter`."""

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
        form: Literal["statement", "rows"] = "statement",
    ) -> None:
        self.form = form
        self._table = table
        self._arrays = arrays
        self._bind_originator_id = bind_originator_id
        self._max_event_bytes = max_event_bytes
        self._ordered = lock_key is not None
        self._cast = f"%s::{originator_id_type}"

        # Every CTE that must run is referenced by the next one: an unreferenced one is never run, and then no lock is
        # taken.
        settings = f"c AS MATERIALIZED (SELECT set_config('lock_timeout', '{lock_timeout}', true))"
        upsert = (
            f"INSERT INTO {tracking} AS x (application_name, notification_id) SELECT %s, %s::bigint FROM c "
            "ON CONFLICT (application_name) DO UPDATE SET notification_id = EXCLUDED.notification_id "
            "WHERE x.notification_id < EXCLUDED.notification_id RETURNING 1"
        )
        # An UPDATE, which never inserts: the row may be deleted by a transaction that ends while this one waits for it.
        update = (
            f"UPDATE {tracking} AS x SET notification_id = %s::bigint FROM c WHERE x.application_name = %s "
            "AND x.notification_id >= %s::bigint AND x.notification_id < %s::bigint RETURNING 1"
        )
        into = f"INSERT INTO {events} {_COLUMNS}"
        one = f"{into} SELECT {self._cast}, %s::bigint, %s::text, %s::bytea"
        many = f"{into} SELECT u.i, u.v, u.t, u.s FROM"
        unnest = f"unnest({self._cast}[], %s::bigint[], %s::text[], %s::bytea[]) WITH ORDINALITY AS u (i, v, t, s, n)"
        self._insert_rows = f"{into} VALUES "
        self._returning = "" if lock_key is None else f" RETURNING {_CHECKED_ID.format(events=events)}"
        if lock_key is None:
            self._one, self._many = _Inserts(one), _Inserts(f"{many} {unnest} ORDER BY u.n")
        else:
            take_lock = f"SELECT pg_advisory_xact_lock({lock_key}) FROM"
            self._lock = f"WITH {settings} {take_lock} c"
            before = f"WITH {settings}, l AS MATERIALIZED ({take_lock} c)"
            # Tracking first: who comes second finds out before the lock is taken, and no two can each hold what the
            # other waits for.
            returning = self._returning
            tracked, conditional = (
                f"WITH {settings}, t AS ({track}), l AS MATERIALIZED ({take_lock} t)" for track in (upsert, update)
            )
            self._one, self._many = (
                _Inserts(
                    f"{before} {insert}",
                    *(
                        f"{with_tracking}, i AS ({insert}) SELECT 0 FROM t UNION ALL SELECT id FROM i"
                        for with_tracking in (tracked, conditional)
                    ),
                )
                for insert in (f"{one} FROM l{returning}", f"{many} l, {unnest} ORDER BY u.n{returning}")
            )
        self._insert_tracking = f"WITH {settings} {upsert}"
        self._update_tracking = f"WITH {settings} {update}"

    def pack(self, events: Sequence[StoredEvent], tracking: Tracking | None) -> Batch:
        size = check_events(events, self._max_event_bytes)
        if tracking is not None:
            check_tracking(tracking)
        if not self._in_one_statement(size):
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
        last: tuple[int, ...] = ()
        if self._ordered:
            last = (_NO_ID_IS_KNOWN if last_id is None else last_id,)
        if batch.needs_transaction:
            return self._write_rows(executor, batch, last)
        is_one = len(events) == 1
        inserts = self._one if is_one else self._many
        values = batch.columns if is_one else self._arrays.parameters(batch.columns, len(events))
        if tracking is None:
            rows = executor.fetch(inserts.alone, (*values, *last))
            # RETURNING promises no order; ORDER BY fixes the order in which ids are given out.
            return sorted([row[0] for row in rows])
        statement = inserts.conditional if isinstance(tracking, ConditionalTracking) else inserts.tracked
        ids = sorted([row[0] for row in executor.fetch(statement, (*_tracking_values(tracking), *values, *last))])
        if not ids:
            raise tracking_conflict(tracking)
        return ids[1:]

    def _in_one_statement(self, size: int) -> bool:
        return self.form == "statement" and size <= MAX_ARRAY_BYTES

    def _write_tracking(self, executor: Executor, tracking: Tracking) -> None:
        is_conditional = isinstance(tracking, ConditionalTracking)
        statement = self._update_tracking if is_conditional else self._insert_tracking
        if not executor.fetch(statement, _tracking_values(tracking)):
            raise tracking_conflict(tracking)

    def _write_rows(self, executor: Executor, batch: Batch, last: Sequence[int]) -> list[int]:
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
            rows = executor.fetch(self._insert_rows + ", ".join(values) + self._returning, (*parameters, *last))
            ids += sorted(row[0] for row in rows)
        return ids

    def doubt(self, error: PersistenceError) -> PendingGap | None:
        if not self._ordered:
            return None
        code = sqlstate(error)
        if code == _ID_IS_LOW:
            return "low"
        # The index of versions is called so when we, or the published package, made it.
        return "taken" if code == _IS_TAKEN and not (constraint(error) or "").endswith(EVENTS_INDEX_SUFFIX) else None

    def find_sequence_behind(self, executor: Executor, error: PersistenceError) -> str | None:
        assert self._table is not None
        if self.doubt(error) == "taken" and not postgresql_sequences.is_index_of_ids(
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
    """Return a state in pieces that are small enough to be literals of a statement."""
    if len(state) <= _MAX_LITERAL_BYTES:
        return [bytes(state)]
    view = memoryview(state)
    return [bytes(view[start : start + _MAX_LITERAL_BYTES]) for start in range(0, len(state), _MAX_LITERAL_BYTES)]


def _chunks(events: Sequence[StoredEvent]) -> Iterator[Sequence[StoredEvent]]:
    """Yield the events in pieces that fit into a statement; a large event makes a piece of its own."""
    start, size = 0, 0
    for index, event in enumerate(events):
        if index > start and (size + len(event.state) > MAX_ARRAY_BYTES or index - start == _MAX_ROWS_PER_STATEMENT):
            yield events[start:index]
            start, size = index, 0
        size += len(event.state)
    if start < len(events):
        yield events[start:]
