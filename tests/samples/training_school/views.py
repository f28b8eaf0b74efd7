"""A view as users write them, and a projection that counts in it."""

from typing import Any

import sqlalchemy as sa
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.persistence import Tracking
from eventsourcing.projection import Projection
from eventsourcing.tests.projection import EventCountersView

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tests.samples.training_school.application import Dog


class CountersView(SQLAlchemyTrackingRecorder, EventCountersView):
    """Stores event counts in its own table, together with the position of the last counted event."""

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
            # Before the tracking, which may be refused: the count must then be rolled back.
            counter = self.counters.c.name == name
            if not session.scalar(sa.select(sa.func.count()).select_from(self.counters).where(counter)):
                session.execute(sa.insert(self.counters).values(name=name, value=0))
            session.execute(sa.update(self.counters).where(counter).values(value=self.counters.c.value + 1))
            self._insert_tracking(session, tracking)


class DogCounters(Projection[CountersView]):
    """Counts dogs and tricks in a view."""

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Any) -> None:
        """Record the position of any other event."""
        self.view.insert_tracking(tracking)

    @process_event.register(Dog.Registered)
    def _(self, domain_event: Any, tracking: Any) -> None:
        self.view.incr_created_event_counter(tracking)

    @process_event.register(Dog.TrickAdded)
    def _(self, domain_event: Any, tracking: Any) -> None:
        self.view.incr_subsequent_event_counter(tracking)
