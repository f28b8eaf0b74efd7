"""The kennels of a tenant, a follower, and an application with its own table.

Every kennel can have a house dog, whose id is the same for all tenants. A reader that reaches another tenant's tables
therefore finds another name there, instead of nothing.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import ApplicationRecorder
from eventsourcing.system import ProcessApplication, System

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder

_HOUSE_DOG: Final = UUID(int=1)


class Dog(Aggregate):
    """A dog with a name."""

    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name = name


class HouseDog(Dog):
    """The dog with the same id in every kennel."""

    @staticmethod
    def create_id(**_: Any) -> UUID:
        """Return the fixed id."""
        return _HOUSE_DOG


class Kennel(Application[UUID]):
    """Registers dogs, and takes snapshots."""

    is_snapshotting_enabled = True

    def register(self, name: str) -> UUID:
        """Register a dog, and return its id."""
        dog = Dog(name=name)
        self.save(dog)
        return dog.id

    def name_of(self, dog_id: UUID) -> str:
        """Return a dog's name."""
        dog: Dog = self.repository.get(dog_id)
        return dog.name

    def names(self) -> list[str]:
        """Return all names, in the order of registration."""
        found = self.recorder.select_notifications(start=None, limit=1_000_000)
        return [self.mapper.to_domain_event(each).name for each in found]  # type: ignore[attr-defined]

    def adopt_house_dog(self, name: str) -> None:
        """Register the house dog."""
        self.save(HouseDog(name))

    def house_dog(self) -> str:
        """Return the house dog's name."""
        return self.name_of(_HOUSE_DOG)


class Reports(Kennel):
    """A second application of the same kind, with its own tables."""

    name = "Reports"


class Count(Aggregate):
    """Recorded for each visit."""

    @event("Began")
    def __init__(self) -> None:
        self.dogs = 0


class Visits(ProcessApplication[UUID]):
    """Follows the kennel."""

    @singledispatchmethod
    def policy(self, domain_event: Any, processing_event: ProcessingEvent[UUID]) -> None:
        """Record an event for each registration."""
        processing_event.collect_events(Count())


class NotesRecorder(SQLAlchemyApplicationRecorder):
    """Creates its own table together with the usual ones."""

    def create_table(self) -> None:
        super().create_table()
        name = self.events_table_name.replace("_events", "_notes")
        table = sa.Table(name, sa.MetaData(schema=self.schema_name), sa.Column("text", sa.Text))
        with self.transaction() as session:
            table.create(session.connection(), checkfirst=True)


class Notes(Application[UUID]):
    """Constructs its own recorder."""

    def construct_recorder(self) -> ApplicationRecorder:
        name = f"{self.env.get('SQLALCHEMY_TABLE_PREFIX', '')}notes_events"
        recorder = NotesRecorder(
            self.factory.datastore,  # type: ignore[attr-defined]
            events_table_name=name,
            schema_name=self.env.get("SQLALCHEMY_SCHEMA") or None,
        )
        if self.env.get("CREATE_TABLE") == "yes":
            recorder.create_table()
        return recorder

    def note(self) -> UUID:
        """Record an event."""
        dog = Dog(name="noted")
        self.save(dog)
        return dog.id


SYSTEM = System(pipes=[[Kennel, Visits]])
