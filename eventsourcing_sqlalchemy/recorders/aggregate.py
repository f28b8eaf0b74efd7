"""Record and read aggregates' events and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.persistence import (
    AggregateRecorder,
    InterfaceError,
    OperationalError,
    PersistenceError,
    StoredEvent,
    Tracking,
)
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy import queries
from eventsourcing_sqlalchemy.aggregate_cache import AggregateCaches
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Batch, EventWriter, Executor
from eventsourcing_sqlalchemy.errors import ConnectionLostError, SequenceBehindError
from eventsourcing_sqlalchemy.group_commit import MAX_BYTES, MAX_ROWS, GroupCommit
from eventsourcing_sqlalchemy.models import record_class
from eventsourcing_sqlalchemy.naming import EVENTS_INDEX_SUFFIX, TableName, check_identifier
from eventsourcing_sqlalchemy.observing import Observer
from eventsourcing_sqlalchemy.recorders.base import SQLAlchemyRecorder
from eventsourcing_sqlalchemy.recorders.rows import to_stored_events
from eventsourcing_sqlalchemy.resolving import resolve
from eventsourcing_sqlalchemy.tables import TableKind, TableSpec

__all__ = ["SQLAlchemyAggregateRecorder"]


class SQLAlchemyAggregateRecorder(SQLAlchemyRecorder, AggregateRecorder):
    """Records aggregates' events, or with ``for_snapshots`` their snapshots, in ``events_table_name``."""

    # The highest id that this recorder has written or, after its first write, read. None until the first write has been
    # compared with the table. An id from a rolled-back transaction is valid too, because it is never generated again.
    _last_id: int | None = None

    def __init__(
        self,
        datastore: SQLAlchemyDatastore,
        *,
        events_table_name: str,
        schema_name: str | None = None,
        for_snapshots: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(datastore, schema_name=schema_name, **kwargs)
        self.events_table_name = events_table_name
        self._events_kind: TableKind = "snapshots" if for_snapshots else "events"
        self.aggregate_caches = AggregateCaches(datastore.current_session)
        limit = datastore.dialect.identifier_limit
        check_identifier("table", events_table_name, limit, suffix="" if for_snapshots else EVENTS_INDEX_SUFFIX)

    def _table_specs(self, schema: str | None) -> list[TableSpec]:
        return [*super()._table_specs(schema), self._spec(self._events_kind, schema, self.events_table_name)]

    @cached_property
    def events_table(self) -> sa.Table:
        """The SQLAlchemy Core table, for your own queries."""
        return next(spec for spec in self.tables if spec.kind == self._events_kind).table()

    @cached_property
    def events_record_cls(self) -> type[Any]:
        """An ORM class mapped to the table, for your own queries; created on first use."""
        return record_class(self.events_table, self._events_kind)

    # -- writing --

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, session: Session | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        """Record events atomically; returns None, because an aggregate recorder has no notification ids.

        Inside :meth:`transaction`, or with ``session``, the events commit with that transaction. Raises IntegrityError
        if an event of the same aggregate and version exists.
        """
        observer = self.datastore.observer
        if observer is None:
            self._insert(stored_events, session, kwargs)
        else:
            self._append_observed(observer, stored_events, lambda: self._insert(stored_events, session, kwargs))
        return None

    def _append_observed(
        self, observer: Observer, stored_events: Sequence[StoredEvent], call: Callable[[], list[int]]
    ) -> list[int]:
        return observer.append(self.datastore, self._events_kind, self._observed_table, len(stored_events), call)

    @cached_property
    def _observed_table(self) -> TableName:
        return self._table(self._events_kind)

    def _insert(
        self, stored_events: Sequence[StoredEvent], session: Session | None, kwargs: dict[str, Any]
    ) -> list[int]:
        try:
            if session is None:
                session = self.datastore.session_to_write()
            if session is not None:
                return self._insert_in_session(session, stored_events, kwargs)
            if self._overrides_hook:
                with self.transaction(commit=True) as session:
                    return self._insert_in_session(session, stored_events, kwargs)
            return self._append(stored_events, kwargs.get("tracking"))
        except BaseException:
            self.aggregate_caches.rejected(stored_events)
            raise

    def _insert_in_session(
        self, session: Session, stored_events: Sequence[StoredEvent], kwargs: dict[str, Any]
    ) -> list[int]:
        ids = self._write_in_session(session, stored_events, kwargs)
        self.aggregate_caches.wrote(session, stored_events)
        return ids

    def _write_in_session(
        self, session: Session, stored_events: Sequence[StoredEvent], kwargs: dict[str, Any]
    ) -> list[int]:
        if not self._overrides_hook and kwargs.get("tracking") is None:
            return self._insert_stored_events(session, stored_events, **kwargs)
        # Atomic even if the user catches an error and continues the transaction.
        with self.datastore.savepoint(session):
            self._insert_events(session, stored_events, **kwargs)
            return self._insert_stored_events(session, stored_events, **kwargs)

    def _insert_events(self, session: Session, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        """Override to write in the same transaction. Called before the events are written."""

    def _insert_stored_events(self, session: Session, stored_events: Sequence[StoredEvent], **kwargs: Any) -> list[int]:
        """Write events in a session's transaction and return their ids. May be overridden."""
        if not stored_events:
            return []
        writer = self._session_writer
        batch = writer.pack(stored_events, None)
        limiter = self.datastore.limiter if self._events_kind == "events" else None
        reservation = None if limiter is None else limiter.reserve(batch, follows=kwargs.get("tracking") is not None)

        def run(work: Callable[[Executor], Any]) -> Any:
            return self.datastore.run_in_session(session, work, self._subject)

        try:
            ids = self._write(writer, batch, writer.write, run)
        except BaseException:
            if reservation is not None:
                reservation.release()
            raise
        if reservation is not None:
            reservation.settle(ids[-1])
        if self.wakeup_key is not None:
            self.datastore.will_commit(session, self.wakeup_key)
        return ids

    def _append(self, stored_events: Sequence[StoredEvent], tracking: Tracking | None) -> list[int]:
        """Write on a pooled connection, in a transaction of its own."""
        self.datastore.admit(writes=True)
        batch = self._writer.pack(stored_events, tracking)
        limiter = self.datastore.limiter if self._events_kind == "events" else None
        reservation = None if limiter is None else limiter.reserve(batch, follows=tracking is not None)
        try:
            if batch.can_join and batch.size <= MAX_BYTES and len(stored_events) <= MAX_ROWS:
                ids = self._group_commit.append(self, batch)
            else:
                try:
                    ids = self.write_batch(batch)
                except ConnectionLostError:
                    ids = self.write_batch_again(batch)
        except BaseException:
            if reservation is not None:
                reservation.release()
            raise
        if reservation is not None:
            reservation.settle(ids[-1])
        if stored_events and self.wakeup_key is not None:
            self.datastore.committed(self.wakeup_key)
        return ids

    @cached_property
    def wakeup_key(self) -> int | None:
        """The number that stands for the table in wake-ups; None for a table that nothing follows."""
        return None

    @cached_property
    def _group_commit(self) -> GroupCommit:
        return GroupCommit()

    def join_batches(self, batches: Sequence[Batch]) -> Batch:
        """Return one batch with all events in order; see :class:`BatchRecorder`."""
        return self._writer.join(batches)

    def write_batch(self, batch: Batch) -> list[int]:
        """Write a batch atomically, and return the ids in the order of its events."""
        writer, datastore = self._writer, self.datastore
        dialect, settings = datastore.dialect, datastore.settings

        def write(executor: Executor, batch: Batch, last_id: int | None) -> list[int]:
            # After an error the transaction is rolled back when the connection returns to the pool.
            dialect.begin(executor, settings)
            ids = writer.write(executor, batch, last_id)
            executor.fetch("COMMIT")
            return ids

        with datastore.writing():
            return self._write(writer, batch, write if batch.needs_transaction else writer.write, self._run)

    def _run(self, work: Callable[[Executor], Any]) -> Any:
        return self.datastore.run(work, self._subject)

    def _write(
        self,
        writer: EventWriter,
        batch: Batch,
        write: Callable[[Executor, Batch, int | None], list[int]],
        run: Callable[[Callable[[Executor], Any]], Any],
    ) -> list[int]:
        """Call ``write`` through ``run``, and return the ids.

        Raises SequenceBehindError, and writes nothing, unless the ids are above all earlier ids in the table. The ids
        are compared with this recorder's last id, which is almost free, and with the table only if that fails.
        """
        last_id = self._last_id

        def work(executor: Executor) -> list[int]:
            return write(executor, batch, last_id)

        while True:
            try:
                ids: list[int] = run(work)
            except PersistenceError as error:
                conflict = writer.id_conflict(error)
                if conflict is None:
                    raise
                if conflict == "low" and last_id is not None:
                    last_id = None  # the table may have been emptied: compare with the table
                    continue
                sequence = run(partial(writer.find_sequence_behind, error=error))
                if sequence is None:
                    raise
                raise self._sequence_behind(sequence) from error.__cause__
            if ids:
                self._last_id = ids[-1]
            return ids

    def _sequence_behind(self, sequence: str) -> SequenceBehindError:
        table = str(self._table(self._events_kind))
        msg = (
            f"The sequence {sequence or 'of its column id'} of table {table} generates ids that are not above the "
            "table's last id, where followers would miss them: rows were inserted without the sequence, or it was "
            f"moved back. Nothing was recorded. {self.datastore.sequence_remedy}"
        )
        return SequenceBehindError(msg, table=table, sequence=sequence)

    def write_batch_again(self, batch: Batch) -> list[int]:
        """Resolve a batch whose connection broke during the write; see :func:`resolve`.

        Raises ConnectionLostError if the outcome is still unknown after SQLALCHEMY_COMMIT_RESOLVE_TIMEOUT.
        """
        events, tracking = batch.events, batch.tracking
        try:
            return resolve(
                lambda: self.write_batch(batch),
                lambda: self._ids_if_recorded(events, tracking),
                self.datastore.settings.commit_resolve_timeout or 0.0,
            )
        except (OperationalError, InterfaceError) as error:  # InterfaceError: another thread closed the application
            msg = (
                f"{self._subject}: the connection was lost, and it is unknown whether the events were recorded: {error}"
            )
            keys = [(event.originator_id, event.originator_version) for event in events]
            raise ConnectionLostError(msg, events=keys, tracking=tracking) from error

    def _ids_if_recorded(self, stored_events: Sequence[StoredEvent], tracking: Tracking | None) -> list[int] | None:
        """Return the events' ids if all are recorded with the same topic and state, otherwise None."""
        column = "id" if self._events_kind == "events" else "0"
        statement = queries.select_stored(self._rendered_events, self.datastore.dialect.placeholder, column)
        ids = []
        for event in stored_events:
            parameters = (self._bind_id(event.originator_id), event.originator_version)
            rows = self.datastore.fetch(statement, parameters, self._subject)
            if not rows or rows[0][1] != event.topic or bytes(rows[0][2]) != bytes(event.state):
                return None
            ids.append(rows[0][0])
        return ids

    # -- reading --

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return an aggregate's events in version order, descending with ``desc``; an empty list if it has none."""
        parameters: list[Any] = [self._bind_id(originator_id)]
        parameters += [value for value in (gt, lte, limit) if value is not None]
        form = (gt is not None, lte is not None, desc, limit is not None)
        statement = self._select_events_statements.get(form)
        if statement is None:
            statement = self._select_events_statements[form] = queries.select_events(
                self._rendered_events,
                self.datastore.dialect.placeholder,
                gt=gt is not None,
                lte=lte is not None,
                desc=desc,
                limit=limit is not None,
            )
        fetch = self.datastore.fetch if self.datastore.observer is None else self._fetch_observed
        rows = fetch(statement, parameters, self._subject)
        return to_stored_events(originator_id, rows)

    def _fetch_observed(self, statement: str, parameters: Sequence[Any], subject: str) -> Sequence[Sequence[Any]]:
        observer, datastore = self.datastore.observer, self.datastore
        if observer is None:  # removed meanwhile
            return datastore.fetch(statement, parameters, subject)
        call = partial(datastore.fetch, statement, parameters, subject)
        return observer.read(datastore, self._events_kind, self._observed_table, call)

    @cached_property
    def _select_events_statements(self) -> dict[tuple[bool, bool, bool, bool], str]:
        """The rendered variants, at most 16."""
        return {}

    @cached_property
    def _rendered_events(self) -> str:
        return self._render(self._events_kind)

    @cached_property
    def _subject(self) -> str:
        """The table's name in error messages."""
        return f"Table {self._table(self._events_kind)}"
