"""Record an application's events together with its position in the applications that it follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import ProcessRecorder, ProgrammingError, StoredEvent, Tracking
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy import queries
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.naming import quote
from eventsourcing_sqlalchemy.recorders.application import SQLAlchemyApplicationRecorder
from eventsourcing_sqlalchemy.recorders.tracking import SQLAlchemyTrackingRecorder
from eventsourcing_sqlalchemy.tables import TableSpec

__all__ = ["SQLAlchemyProcessRecorder"]


class SQLAlchemyProcessRecorder(SQLAlchemyTrackingRecorder, SQLAlchemyApplicationRecorder, ProcessRecorder):
    """Records new events and the position of the notification that caused them, in one statement.

    If two processes handle the same notification, one wins; the other gets IntegrityError and writes nothing.
    """

    def __init__(
        self,
        datastore: SQLAlchemyDatastore,
        *,
        events_table_name: str = "stored_events",
        tracking_table_name: str = "notification_tracking",
        schema_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            datastore,
            events_table_name=events_table_name,
            tracking_table_name=tracking_table_name,
            schema_name=schema_name,
            **kwargs,
        )

    def _check_missing(self, missing: list[TableSpec]) -> None:
        # The published package ignores the schema for a following application's events, and for nothing else. A new
        # empty table beside its positions would silently hide those events.
        super()._check_missing(missing)
        if {spec.kind for spec in missing} == {"events"} and self._has_positions():
            msg = (
                f"{self._tracking_subject} has positions, but the events table {self._table('events')} is missing. "
                "Version 1 created it in the default schema. Move it: "
                f"ALTER TABLE {quote(self.events_table_name)} SET SCHEMA {quote(self._table('events').schema or '')}"
            )
            raise ProgrammingError(msg)

    def _has_positions(self) -> bool:
        statement = queries.select_any(self._render("tracking", parameters=False))
        return bool(self.datastore.fetch(statement, (), self._tracking_subject))

    def _insert_events(self, session: Session, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        # Lock order: tracking before the events' writer lock.
        tracking: Tracking | None = kwargs.get("tracking")
        if tracking is not None:
            self._insert_tracking(session, tracking)

    def _ids_if_recorded(self, stored_events: Sequence[StoredEvent], tracking: Tracking | None) -> list[int] | None:
        if tracking is not None:
            position = self.max_tracking_id(tracking.application_name) or 0
            # Another process may have advanced the position since. If there are events, they decide.
            if position < tracking.notification_id or (position > tracking.notification_id and not stored_events):
                return None
        return super()._ids_if_recorded(stored_events, tracking)
