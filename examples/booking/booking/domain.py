"""What a business offers, and the appointments of its customers."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import AggregateNotFoundError, Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, DomainEventProtocol, event
from eventsourcing.persistence import IntegrityError
from eventsourcing.system import ProcessApplication

__all__ = ["Appointment", "Appointments", "Catalogue", "Offer", "Reminder", "Reminders", "SlotTaken"]


class SlotTaken(Exception):
    """The slot is booked already."""


class Offer(Aggregate):
    """A service that customers can book."""

    class Added(Aggregate.Created):
        """It was added to the catalogue."""

        name: str
        minutes: int

    @event(Added)
    def __init__(self, name: str, minutes: int) -> None:
        self.name = name
        self.minutes = minutes

    @staticmethod
    def create_id(name: str, minutes: int) -> UUID:  # noqa: ARG004 (the library passes all arguments of the constructor)
        """Derive the id from the name, so that no offer can be added twice."""
        return uuid5(NAMESPACE_URL, f"offer/{name}")


class Catalogue(Application[UUID]):
    """What a business offers."""

    def add(self, name: str, minutes: int) -> UUID:
        """Add an offer, or return the one that has this name."""
        offer = Offer(name, minutes)
        with suppress(IntegrityError):  # added before, perhaps by a hook that was repeated
            self.save(offer)
        return offer.id

    def minutes_of(self, name: str) -> int | None:
        """Return how long a service takes, or None if the business does not offer it."""
        try:
            offer: Offer = self.repository.get(Offer.create_id(name, 0))
        except AggregateNotFoundError:
            return None
        return offer.minutes


class Appointment(Aggregate):
    """One slot of the agenda."""

    class Booked(Aggregate.Created):
        """A customer has booked a free slot."""

        customer: str
        offer: str
        starts_at: datetime

    class Cancelled(Aggregate.Event):
        """The slot is free again."""

    class BookedAgain(Aggregate.Event):
        """A customer has booked a slot that was cancelled."""

        customer: str
        offer: str
        starts_at: datetime

    @event(Booked)
    def __init__(self, customer: str, offer: str, starts_at: datetime) -> None:
        self.customer: str | None = customer
        self.offer = offer
        self.starts_at = starts_at

    @staticmethod
    def create_id(customer: str, offer: str, starts_at: datetime) -> UUID:  # noqa: ARG004 (as above)
        """Derive the id from the slot: the database then refuses a second booking, also at the same moment."""
        return uuid5(NAMESPACE_URL, f"slot/{starts_at.isoformat()}")

    @event(Cancelled)
    def cancel(self) -> None:
        """Free the slot."""
        self.customer = None

    @event(BookedAgain)
    def book_again(self, customer: str, offer: str, starts_at: datetime) -> None:
        """Book a slot that is free again. ``starts_at`` is in the event for those that follow."""
        self.customer, self.offer, self.starts_at = customer, offer, starts_at


class Appointments(Application[UUID]):
    """The agenda of a business."""

    def book(self, customer: str, offer: str, starts_at: datetime) -> UUID:
        """Book a slot and return the appointment's id; raises SlotTaken."""
        appointment = Appointment(customer, offer, starts_at)
        try:
            self.save(appointment)
        except IntegrityError:
            appointment = self.repository.get(appointment.id)
            if appointment.customer is not None:
                raise SlotTaken(starts_at.isoformat()) from None
            appointment.book_again(customer, offer, starts_at)
            try:
                self.save(appointment)
            except IntegrityError:
                raise SlotTaken(starts_at.isoformat()) from None
        return appointment.id

    def cancel(self, appointment_id: UUID) -> None:
        """Free a slot; does nothing if it is free."""
        appointment: Appointment = self.repository.get(appointment_id)
        if appointment.customer is not None:
            appointment.cancel()
            self.save(appointment)


class Reminder(Aggregate):
    """A message to a customer before an appointment."""

    class Planned(Aggregate.Created):
        """It will be sent."""

        customer: str
        appointment_id: UUID

    @event(Planned)
    def __init__(self, customer: str, appointment_id: UUID) -> None:
        self.customer = customer
        self.appointment_id = appointment_id


class Reminders(ProcessApplication[UUID]):
    """Plans a reminder for each booking. The runner makes it follow the appointments."""

    @singledispatchmethod
    def policy(self, domain_event: DomainEventProtocol[UUID], processing_event: ProcessingEvent[UUID]) -> None:
        """React to an event of the agenda."""

    @policy.register
    def _(self, domain_event: Appointment.Booked, processing_event: ProcessingEvent[UUID]) -> None:
        processing_event.collect_events(Reminder(domain_event.customer, domain_event.originator_id))

    @policy.register
    def _(self, domain_event: Appointment.BookedAgain, processing_event: ProcessingEvent[UUID]) -> None:
        processing_event.collect_events(Reminder(domain_event.customer, domain_event.originator_id))

    def count(self) -> int:
        """Return the number of reminders."""
        return self.recorder.max_notification_id() or 0
