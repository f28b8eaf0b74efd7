"""Applications that tenants have in these tests: one leads, one follows it, and one has tables of its own."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import ApplicationRecorder
from eventsourcing.system import ProcessApplication, System

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder


class Dog(Aggregate):
    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name = name


class Kennel(Application[UUID]):
    """Registers dogs, and takes snapshots."""

    is_snapshotting_enabled = True

    def register(self, name: str) -> UUID:
        dog = Dog(name=name)
        self.save(dog)
        return dog.id

    def names(self) -> list[str]:
        found = self.recorder.select_notifications(start=None, limit=1000)
        return [self.mapper.to_domain_event(each).name for each in found]  # type: ignore[attr-defined]


class Count(Aggregate):
    @event("Began")
    def __init__(self) -> None:
        self.dogs = 0


class Visits(ProcessApplication[UUID]):
    """Follows the kennel."""

    @singledispatchmethod
    def policy(self, domain_event: Any, processing_event: ProcessingEvent[UUID]) -> None:
        """Record something for each registration."""
        processing_event.collect_events(Count())


class NotesRecorder(SQLAlchemyApplicationRecorder):
    """A recorder with a table of its own, which it makes as the others are made."""

    def create_table(self) -> None:
        super().create_table()
        with self.transaction() as session:
            notes_table(self).create(session.connection(), checkfirst=True)


def notes_table(recorder: SQLAlchemyApplicationRecorder) -> sa.Table:
    name = recorder.events_table_name.replace("_events", "_notes")
    return sa.Table(name, sa.MetaData(schema=recorder.schema_name), sa.Column("text", sa.Text))


class Notes(Application[UUID]):
    """Has a recorder of its own."""

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
        dog = Dog(name="noted")
        self.save(dog)
        return dog.id


SYSTEM = System(pipes=[[Kennel, Visits]])


def unique(word: str) -> str:
    """Return a slug that nobody has."""
    return f"{word}-{uuid4().hex[:8]}"
