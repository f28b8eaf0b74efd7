"""The read model of each business: who comes when."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import Tracking
from eventsourcing.projection import Projection

from booking.domain import Appointment
from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder

__all__ = ["Agenda", "KeepAgenda"]


class Agenda(SQLAlchemyTrackingRecorder):
    """A table of booked slots, in the place of its tenant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots = self.own_table(
            "slots",
            sa.Column("appointment_id", sa.Uuid, primary_key=True),
            sa.Column("starts_at", sa.DateTime, nullable=False, index=True),
            sa.Column("customer", sa.Text, nullable=False),
            sa.Column("offer", sa.Text, nullable=False),
        )

    def create_table(self) -> None:
        """Create the table beside that of the positions."""
        super().create_table()
        self.slots.create(self.datastore.engine, checkfirst=True)

    def put(self, slot: dict[str, Any], tracking: Tracking) -> None:
        """Add a slot and record the position, in one transaction."""
        with self.transaction() as session:
            self._insert_tracking(session, tracking)
            session.execute(sa.insert(self.slots).values(slot))

    def free(self, appointment_id: UUID, tracking: Tracking) -> None:
        """Remove a slot and record the position, in one transaction."""
        with self.transaction() as session:
            self._insert_tracking(session, tracking)
            session.execute(sa.delete(self.slots).where(self.slots.c.appointment_id == appointment_id))

    def of_day(self, day: date) -> list[tuple[UUID, datetime, str, str]]:
        """Return the id, time, customer and offer of a day's appointments."""
        start = datetime.combine(day, time())
        query = (
            sa.select(self.slots)
            .where(self.slots.c.starts_at >= start, self.slots.c.starts_at < start + timedelta(days=1))
            .order_by(self.slots.c.starts_at)
        )
        with self.transaction(commit=False) as session:
            return [(row.appointment_id, row.starts_at, row.customer, row.offer) for row in session.execute(query)]


class KeepAgenda(Projection[Agenda]):
    """Fills the agenda. The runner keeps it up to date."""

    @singledispatchmethod
    def process_event(self, domain_event: DomainEventProtocol[UUID], tracking: Tracking) -> None:
        """Process an event of the appointments."""

    @process_event.register(Appointment.Booked)
    @process_event.register(Appointment.BookedAgain)
    def _(self, domain_event: Appointment.Booked | Appointment.BookedAgain, tracking: Tracking) -> None:
        slot = {
            "appointment_id": domain_event.originator_id,
            "starts_at": domain_event.starts_at,
            "customer": domain_event.customer,
            "offer": domain_event.offer,
        }
        self.view.put(slot, tracking)

    @process_event.register
    def _(self, domain_event: Appointment.Cancelled, tracking: Tracking) -> None:
        self.view.free(domain_event.originator_id, tracking)
