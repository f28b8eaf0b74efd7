"""A system of three applications: what is ordered is cooked, what is cooked is billed."""

from functools import singledispatchmethod
from typing import Any
from uuid import UUID

from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.domain import Aggregate, DomainEventProtocol, event
from eventsourcing.system import ProcessApplication, System


class Order(Aggregate):
    """What a guest wants."""

    class Placed(Aggregate.Created):
        """A guest has ordered."""

        dish: str

    @event(Placed)
    def __init__(self, dish: str) -> None:
        self.dish = dish


class Meal(Aggregate):
    """What is cooked."""

    class Cooked(Aggregate.Created):
        """A meal is ready."""

        dish: str

    @event(Cooked)
    def __init__(self, dish: str) -> None:
        self.dish = dish


class Bill(Aggregate):
    """What is to be paid."""

    class Written(Aggregate.Created):
        """The bill is on the table."""

        dish: str

    @event(Written)
    def __init__(self, dish: str) -> None:
        self.dish = dish


class Orders(Application[UUID]):
    """Takes orders."""

    def order(self, dish: str) -> None:
        """Take an order."""
        self.save(Order(dish))


class Kitchen(ProcessApplication[UUID]):
    """Cooks what is ordered."""

    @singledispatchmethod
    def policy(self, domain_event: DomainEventProtocol[UUID], processing_event: ProcessingEvent[UUID]) -> None:
        """Cook."""

    @policy.register
    def _(self, domain_event: Order.Placed, processing_event: ProcessingEvent[UUID]) -> None:
        processing_event.collect_events(Meal(domain_event.dish))


class Billing(ProcessApplication[UUID]):
    """Bills what is cooked."""

    @singledispatchmethod
    def policy(self, domain_event: DomainEventProtocol[UUID], processing_event: ProcessingEvent[UUID]) -> None:
        """Write the bill."""

    @policy.register
    def _(self, domain_event: Meal.Cooked, processing_event: ProcessingEvent[UUID]) -> None:
        processing_event.collect_events(Bill(domain_event.dish))


APPLICATIONS: tuple[type[Application[Any]], ...] = (Orders, Kitchen, Billing)
RESTAURANT = System(pipes=[APPLICATIONS])
