"""Record and read an application's events as one ordered log, which other applications follow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from eventsourcing.persistence import Notification, StoredEvent, Subscription
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy import queries, sequences
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.validation import check_argument
from eventsourcing_sqlalchemy.notifications.wakeups import Waiter
from eventsourcing_sqlalchemy.recorders.aggregate import SQLAlchemyAggregateRecorder
from eventsourcing_sqlalchemy.recorders.rows import to_notifications
from eventsourcing_sqlalchemy.subscriptions import SQLAlchemySubscription, SubscribableRecorder

__all__ = ["SQLAlchemyApplicationRecorder"]


class SQLAlchemyApplicationRecorder(SQLAlchemyAggregateRecorder, SubscribableRecorder):
    """Records an application's events, which become visible in the order of their ids."""

    def __init__(
        self,
        datastore: SQLAlchemyDatastore,
        *,
        events_table_name: str = "stored_events",
        schema_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(datastore, events_table_name=events_table_name, schema_name=schema_name, **kwargs)

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, session: Session | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        """Record events atomically, and return their notification ids in the order of the events.

        Inside :meth:`transaction`, or with ``session``, the events commit with that transaction. Raises IntegrityError
        if an event of the same aggregate and version exists.
        """
        observer = self.datastore.observer
        if observer is None:
            return self._insert(stored_events, session, kwargs)
        return self._append_observed(observer, stored_events, lambda: self._insert(stored_events, session, kwargs))

    @cached_property
    def wakeup_key(self) -> int:
        """The events table's key in wake-ups."""
        return self._table("events").key

    def wait_for_events(self) -> Waiter:
        """Return a waiter that is woken by every commit of events from now on."""
        return self.datastore.wait_for(self.wakeup_key)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> list[Notification]:
        """Return at most ``limit`` notifications with ids from ``start`` to ``stop``, both inclusive by default.

        With ``topics``, only notifications with one of these topics are returned. None means no bound.
        """
        comparison = None if start is None else ">=" if inclusive_of_start else ">"
        statement = queries.select_notifications(
            self._rendered_events,
            self.datastore.dialect.placeholder,
            originator_id=self._originator_id,
            start=comparison,
            stop=stop is not None,
            topics=len(topics),
        )
        for topic in topics:
            check_argument("topic", topic)
        parameters = [value for value in (start, stop) if value is not None] + [*topics, limit]
        fetch = self.datastore.fetch if self.datastore.observer is None else self._fetch_observed
        rows = fetch(statement, parameters, self._subject)
        notifications = to_notifications(rows, self._read_id)
        if notifications:
            self._raise_last_id(notifications[-1].id)
        return notifications

    @cached_property
    def _originator_id(self) -> str:
        return self.datastore.dialect.select_originator_id(self.datastore.originator_id_type)

    @cached_property
    def _read_id(self) -> Any:
        return self.datastore.dialect.read_originator_id(self.datastore.originator_id_type)

    def max_notification_id(self) -> int | None:
        """Return the highest notification id, or None without events."""
        statement = queries.select_max_notification_id(self._render("events", parameters=False))
        number: int | None = self.datastore.fetch(statement, (), self._subject)[0][0]
        self._raise_last_id(number or 0)
        return number

    def _raise_last_id(self, last_id: int) -> None:
        """Require new ids to be above an id that was read."""
        if self._last_id is not None and last_id > self._last_id:
            self._last_id = last_id

    def repair_sequence(self) -> bool:
        """Advance the id sequence to the table's last id, and return whether it was behind.

        A data-only restore, logical replication or COPY leaves it behind, and writes then raise SequenceBehindError.
        Safe during concurrent writes. The role needs UPDATE on the sequence.
        """
        behind = sequences.find_behind(self.datastore, [self._table("events")])
        for each in behind:
            sequences.repair(self.datastore, each)
        return bool(behind)

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[SubscribableRecorder]:
        """Return an iterator over the notifications with ids above ``gt``, which blocks until new ones arrive.

        It ends when it is stopped. ``topics`` are as in :meth:`select_notifications`.
        """
        # Not through a scoped session, which would hold a transaction open in the subscriber's thread while it waits.
        datastore = self.datastore.without_scoped_session()
        recorder = self
        if datastore is not self.datastore:
            recorder = SQLAlchemyApplicationRecorder(
                datastore, events_table_name=self.events_table_name, schema_name=self.schema_name
            )
        return SQLAlchemySubscription(recorder, gt=gt, topics=topics)
