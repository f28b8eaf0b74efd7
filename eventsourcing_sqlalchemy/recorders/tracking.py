"""Record positions: how far other applications' events have been processed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from eventsourcing.persistence import InterfaceError, OperationalError, ProgrammingError, Tracking, TrackingRecorder
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy import queries
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Batch
from eventsourcing_sqlalchemy.dialects.tracking import ConditionalTracking, tracking_conflict
from eventsourcing_sqlalchemy.dialects.validation import check_argument, check_tracking
from eventsourcing_sqlalchemy.errors import ConnectionLostError
from eventsourcing_sqlalchemy.models import record_class
from eventsourcing_sqlalchemy.naming import shorten_identifier
from eventsourcing_sqlalchemy.recorders.base import SQLAlchemyRecorder
from eventsourcing_sqlalchemy.resolving import resolve
from eventsourcing_sqlalchemy.tables import TableSpec
from eventsourcing_sqlalchemy.transactions import current_transaction

__all__ = ["SQLAlchemyTrackingRecorder"]


class SQLAlchemyTrackingRecorder(SQLAlchemyRecorder, TrackingRecorder):
    """Records one position per followed application, which only moves forward.

    To update a view in the same transaction, subclass it, open ``self.transaction()`` and call
    ``self._insert_tracking(session, tracking)`` inside. :meth:`own_table` returns tables for the view.
    """

    def __init__(
        self,
        datastore: SQLAlchemyDatastore,
        *,
        tracking_table_name: str = "notification_tracking",
        schema_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(datastore, schema_name=schema_name, **kwargs)
        self.check_identifier_length(tracking_table_name)
        self.tracking_table_name = tracking_table_name

    def _table_specs(self, schema: str | None) -> list[TableSpec]:
        return [*super()._table_specs(schema), self._spec("tracking", schema, self.tracking_table_name)]

    def own_table(self, suffix: str, *items: sa.schema.SchemaItem) -> sa.Table:
        """Return a table for a view, with these columns, indexes and constraints; create it in ``create_table``.

        It is in the tracking table's schema, and its name starts with the tracking table's name, so that it belongs to
        this application alone. A name that is too long for the database is truncated and ends with a hash.
        """
        name = shorten_identifier(f"{self.tracking_table_name}_{suffix}", self.datastore.dialect.identifier_limit)
        return sa.Table(name, self.own_tables, *items)

    @cached_property
    def own_tables(self) -> sa.MetaData:
        """The metadata of the tables that :meth:`own_table` has returned."""
        return sa.MetaData(schema=self.schema_name)

    @cached_property
    def tracking_table(self) -> sa.Table:
        """The SQLAlchemy Core table, for your own queries."""
        return next(spec for spec in self.tables if spec.kind == "tracking").table()

    @cached_property
    def tracking_record_cls(self) -> type[Any]:
        """An ORM class mapped to the table, for your own queries; created on first use."""
        return record_class(self.tracking_table, "tracking")

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record a position; raises IntegrityError, and writes nothing, unless it is ahead of the recorded one."""
        session = self.datastore.session_to_write()
        if session is not None:
            self._insert_tracking(session, tracking)
            return
        if self._overrides_hook:
            with self.transaction(commit=True) as session:
                self._insert_tracking(session, tracking)
            return
        self.datastore.admit(writes=True)
        batch = self._writer.pack((), tracking)
        try:
            self._track(batch)
        except ConnectionLostError:
            self._track_again(batch, tracking)

    @contextmanager
    def batch(self) -> Iterator[Session]:
        """Yield the session of a transaction in which many notifications are processed; it commits at the end.

        Each application's first position is written, and locks the recorded one until the transaction ends. Later ones
        are compared in memory, with the same errors, and the last of them is written at the end. Joins an open
        transaction, which then commits. With a scoped session, each position is written.

        Raises ProgrammingError at the end if a transaction block inside has failed and its error was ignored. In a
        transaction of its own, that block would have been rolled back alone: process the notifications one by one.
        """
        with self.transaction() as session:
            transaction = current_transaction(self.datastore)
            if transaction is None:
                yield session
                return
            positions = transaction.state[self] = _Positions()
            try:
                yield session
            finally:
                del transaction.state[self]
            if transaction.has_failed_block:
                msg = (
                    "A block in the batch has failed, and its error was ignored. Process the notifications one by one."
                )
                raise ProgrammingError(msg)
            for tracking in positions.unwritten():
                self._write_tracking(session, tracking)

    def _positions(self) -> _Positions | None:
        """Return the positions of this context's batch, or None."""
        transaction = current_transaction(self.datastore)
        return None if transaction is None else transaction.state.get(self)

    def _track(self, batch: Batch) -> list[int]:
        with self.datastore.writing():
            return self.datastore.run(lambda executor: self._writer.write(executor, batch), self._tracking_subject)

    def _track_again(self, batch: Batch, tracking: Tracking) -> None:
        """Resolve a position whose connection broke during the write; see :func:`resolve`."""

        def recorded() -> list[int] | None:
            return [] if self.max_tracking_id(tracking.application_name) == tracking.notification_id else None

        try:
            resolve(lambda: self._track(batch), recorded, self.datastore.settings.commit_resolve_timeout or 0.0)
        except (OperationalError, InterfaceError) as error:  # InterfaceError: another thread closed the application
            msg = (
                f"{self._tracking_subject}: the connection was lost, and it is unknown whether the position was "
                f"recorded: {error}"
            )
            raise ConnectionLostError(msg, tracking=tracking) from error

    def _insert_tracking(self, session: Session, tracking: Tracking) -> None:
        """Record a position in a session's transaction. Views may call or override it."""
        positions = self._positions()
        if positions is None or not positions.advance(tracking):
            self._write_tracking(session, tracking)
            if positions is not None:
                positions.add(tracking)

    def _write_tracking(self, session: Session, tracking: Tracking) -> None:
        writer = self._session_writer
        batch = writer.pack((), tracking)
        self.datastore.run_in_session(session, lambda executor: writer.write(executor, batch), self._tracking_subject)

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return an application's recorded position, or None."""
        check_argument("application_name", application_name)
        positions = self._positions()
        if positions is not None and application_name in positions.last:
            return positions.last[application_name]
        statement = queries.select_max_tracking_id(self._render("tracking"), self.datastore.dialect.placeholder)
        rows = self.datastore.fetch(statement, (application_name,), self._tracking_subject)
        return rows[0][0] if rows else None

    @cached_property
    def _tracking_subject(self) -> str:
        """The table's name in error messages."""
        return f"Table {self._table('tracking')}"


class _Positions:
    """The positions of a batch. The database has the first of each application, whose row is locked."""

    def __init__(self) -> None:
        self._written: dict[str, int] = {}
        self.last: dict[str, int] = {}

    def add(self, tracking: Tracking) -> None:
        """Remember a position that was written."""
        self._written[tracking.application_name] = self.last[tracking.application_name] = tracking.notification_id

    def advance(self, tracking: Tracking) -> bool:
        """Advance an application's position, or return False for its first one; raises IntegrityError."""
        check_tracking(tracking)
        last = self.last.get(tracking.application_name)
        if last is None:
            return False
        at_least = tracking.at_least if isinstance(tracking, ConditionalTracking) else last
        if not at_least <= last < tracking.notification_id:
            raise tracking_conflict(tracking)
        self.last[tracking.application_name] = tracking.notification_id
        return True

    def unwritten(self) -> list[Tracking]:
        """Return the positions to write at the end."""
        return [
            ConditionalTracking(name, last, self._written[name])
            for name, last in self.last.items()
            if last > self._written[name]
        ]
