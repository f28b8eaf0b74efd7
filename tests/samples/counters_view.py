"""A view as users write them: a recorder of positions with a table of its own."""

from typing import Any

import sqlalchemy as sa
from eventsourcing.persistence import Tracking
from eventsourcing.tests.projection import EventCountersView

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder


class CountersView(SQLAlchemyTrackingRecorder, EventCountersView):
    """Counts events in a table of its own, together with the position that it has counted up to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counters = self.own_table(
            "counters",
            sa.Column("name", sa.Text, primary_key=True),
            sa.Column("value", sa.Integer, nullable=False),
        )

    def create_table(self) -> None:
        super().create_table()
        with self.datastore.get_connection() as connection:
            self.counters.create(connection, checkfirst=True)
            connection.commit()

    def get_created_event_counter(self) -> int:
        return self._get("created")

    def get_subsequent_event_counter(self) -> int:
        return self._get("subsequent")

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self._increment("created", tracking)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self._increment("subsequent", tracking)

    def _get(self, name: str) -> int:
        with self.transaction(commit=False) as session:
            return session.scalar(sa.select(self.counters.c.value).where(self.counters.c.name == name)) or 0

    def _increment(self, name: str, tracking: Tracking) -> None:
        with self.transaction() as session:
            # Counted first: what the tracking refuses must be undone.
            counter = self.counters.c.name == name
            if not session.scalar(sa.select(sa.func.count()).select_from(self.counters).where(counter)):
                session.execute(sa.insert(self.counters).values(name=name, value=0))
            session.execute(sa.update(self.counters).where(counter).values(value=self.counters.c.value + 1))
            self._insert_tracking(session, tracking)
