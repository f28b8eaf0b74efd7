"""A dog school as three applications: the example of how the package is used.

Nothing here depends on a database, a schema or a tenant. The environment decides where each application stores events:

    PERSISTENCE_MODULE=eventsourcing_sqlalchemy
    SQLALCHEMY_URL=postgresql://user@host/database
    SQLALCHEMY_SCHEMA={application}_v1
"""

from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, DomainEventProtocol, event
from eventsourcing.system import ProcessApplication, System

from tenancy.tenancy import Tenancy


class Trainer(Aggregate):
    """A person who teaches dogs."""

    class Hired(Aggregate.Created):
        """The first event of a trainer."""

        name: str

    class TrickTaught(Aggregate.Event):
        """A dog has learned something."""

        dog: str
        trick: str

    @event(Hired)
    def __init__(self, name: str) -> None:
        self.name = name
        self.taught: list[tuple[str, str]] = []

    @event(TrickTaught)
    def teach(self, dog: str, trick: str) -> None:
        """Teach a dog a trick."""
        self.taught.append((dog, trick))


class Trainers(Application[UUID]):
    """The application for trainers."""

    def hire(self, name: str) -> UUID:
        """Record a new trainer and return their id."""
        trainer = Trainer(name)
        self.save(trainer)
        return trainer.id

    def teach(self, trainer_id: UUID, dog: str, trick: str) -> None:
        """Record that a trainer taught a dog a trick."""
        trainer: Trainer = self.repository.get(trainer_id)
        trainer.teach(dog, trick)
        self.save(trainer)


class Kennel(Aggregate):
    """A house for dogs."""

    class Built(Aggregate.Created):
        """The first event of a kennel."""

        name: str

    class DogArrived(Aggregate.Event):
        """A dog has moved in."""

        dog: str

    @event(Built)
    def __init__(self, name: str) -> None:
        self.name = name
        self.dogs: list[str] = []

    @event(DogArrived)
    def admit(self, dog: str) -> None:
        """Add a dog."""
        self.dogs.append(dog)


class Kennels(Application[UUID]):
    """The application for kennels."""

    def build(self, name: str) -> UUID:
        """Record a new kennel and return its id."""
        kennel = Kennel(name)
        self.save(kennel)
        return kennel.id

    def admit(self, kennel_id: UUID, dog: str) -> None:
        """Record that a dog moved into a kennel."""
        kennel: Kennel = self.repository.get(kennel_id)
        kennel.admit(dog)
        self.save(kennel)

    def residents(self, kennel_id: UUID) -> list[str]:
        """Return the name of a kennel, and those of its dogs."""
        kennel: Kennel = self.repository.get(kennel_id)
        return [kennel.name, *kennel.dogs]


class Report(Aggregate):
    """The history of one trainer or kennel: a line for each event."""

    class Opened(Aggregate.Created):
        """The first line."""

        subject_id: UUID
        line: str

    class LineAdded(Aggregate.Event):
        """Every other line."""

        line: str

    @event(Opened)
    def __init__(self, subject_id: UUID, line: str) -> None:
        self.subject_id = subject_id
        self.lines = [line]

    @event(LineAdded)
    def add(self, line: str) -> None:
        """Add a line."""
        self.lines.append(line)

    @staticmethod
    def create_id(subject_id: UUID) -> UUID:
        """Return the id of the report on a trainer or a kennel."""
        return uuid5(NAMESPACE_URL, f"/reports/{subject_id}")


class Reports(ProcessApplication[UUID]):
    """Follows the other two: each event becomes a line, recorded together with the position."""

    def lines(self, subject_id: UUID) -> list[str]:
        """Return the report on a trainer or a kennel."""
        report: Report = self.repository.get(Report.create_id(subject_id))
        return report.lines

    @singledispatchmethod
    def policy(self, domain_event: DomainEventProtocol[UUID], processing_event: ProcessingEvent[UUID]) -> None:
        """Process an event of the other applications."""

    @policy.register
    def _(self, domain_event: Trainer.Hired, processing_event: ProcessingEvent[UUID]) -> None:
        processing_event.collect_events(Report(domain_event.originator_id, f"hired {domain_event.name}"))

    @policy.register
    def _(self, domain_event: Trainer.TrickTaught, processing_event: ProcessingEvent[UUID]) -> None:
        self._add(domain_event, f"taught {domain_event.dog} to {domain_event.trick}", processing_event)

    @policy.register
    def _(self, domain_event: Kennel.Built, processing_event: ProcessingEvent[UUID]) -> None:
        processing_event.collect_events(Report(domain_event.originator_id, f"built {domain_event.name}"))

    @policy.register
    def _(self, domain_event: Kennel.DogArrived, processing_event: ProcessingEvent[UUID]) -> None:
        self._add(domain_event, f"{domain_event.dog} moved in", processing_event)

    def _add(self, domain_event: Aggregate.Event, line: str, processing_event: ProcessingEvent[UUID]) -> None:
        report: Report = self.repository.get(Report.create_id(domain_event.originator_id))
        report.add(line)
        processing_event.collect_events(report)


APPLICATIONS: tuple[type[Application[Any]], ...] = (Trainers, Kennels, Reports)
SYSTEM = System(pipes=[[Trainers, Reports], [Kennels, Reports]])


def open_tenancy() -> Tenancy:
    """Return the demo's tenants, for its commands."""
    return Tenancy(system=SYSTEM)
