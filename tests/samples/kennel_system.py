"""A system of three applications for the fleets of tests, and a projection with a view of its own."""

from __future__ import annotations

import time
from typing import Any, ClassVar
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.projection import Projection
from eventsourcing.system import ProcessApplication, System
from eventsourcing.utils import get_topic

from tests.samples.counters_view import CountersView


class Dog(Aggregate):
    """A dog that learns."""

    class Registered(Aggregate.Created):
        """It came to school."""

        name: str

    class TrickAdded(Aggregate.Event):
        """It has learned something."""

        trick: str

    @event(Registered)
    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @event(TrickAdded)
    def add_trick(self, trick: str) -> None:
        """Learn a trick."""
        self.tricks.append(trick)


class Diary(Aggregate):
    """What happened to a dog, in the order in which it was processed."""

    class Written(Aggregate.Event):
        """Something was written."""

        entry: str

    @event("Begun")
    def __init__(self, dog_id: UUID, name: str) -> None:
        self.dog_id = dog_id
        self.entries = [name]

    @staticmethod
    def create_id(dog_id: UUID) -> UUID:
        return uuid5(NAMESPACE_URL, f"/diaries/{dog_id}")

    @event(Written)
    def write(self, entry: str) -> None:
        """Add an entry."""
        self.entries.append(entry)


class Summary(Aggregate):
    """How much was written in all diaries."""

    ID: ClassVar = uuid5(NAMESPACE_URL, "/summary")

    @event("Opened")
    def __init__(self) -> None:
        self.count = 0

    @staticmethod
    def create_id() -> UUID:
        return Summary.ID

    @event("Counted")
    def add(self) -> None:
        """Count one."""
        self.count += 1


class School(Application[UUID]):
    """Trains dogs."""

    def register(self, name: str, *tricks: str) -> UUID:
        """Register a dog that knows tricks: one event and one for each trick."""
        dog = Dog(name)
        for trick in tricks:
            dog.add_trick(trick)
        self.save(dog)
        return dog.id

    def teach(self, dog_id: UUID, trick: str) -> None:
        """Teach a dog."""
        dog: Dog = self.repository.get(dog_id)
        dog.add_trick(trick)
        self.save(dog)


class Diaries(ProcessApplication[UUID]):
    """Writes down what dogs learn. A trick called "poison..." is an error, one called "slow..." takes a while."""

    @singledispatchmethod
    def policy(self, domain_event: Any, processing_event: Any) -> None:
        """Do nothing with other events."""

    @policy.register(Dog.Registered)
    def _(self, domain_event: Any, processing_event: Any) -> None:
        processing_event.collect_events(Diary(domain_event.originator_id, domain_event.name))

    @policy.register(Dog.TrickAdded)
    def _(self, domain_event: Any, processing_event: Any) -> None:
        trick = domain_event.trick
        if trick.startswith("poison"):
            raise Poisoned(trick)
        if trick.startswith("exit"):
            raise SystemExit(trick)
        if trick.startswith("slow"):
            time.sleep(float(trick.removeprefix("slow ")))
        diary: Diary = self.repository.get(Diary.create_id(domain_event.originator_id))
        diary.write(trick)
        processing_event.collect_events(diary)

    def entries(self, dog_id: UUID) -> list[str]:
        """Return what was written about a dog."""
        diary: Diary = self.repository.get(Diary.create_id(dog_id))
        return diary.entries


class Poisoned(Exception):  # noqa: N818 (what the event is)
    """The trick cannot be written down; says which it is, as errors do."""


class Summaries(ProcessApplication[UUID]):
    """Counts what is written; does not care for beginnings."""

    follow_topics: ClassVar = [get_topic(Diary.Written)]

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        try:
            summary: Summary = self.repository.get(Summary.ID)
        except AggregateNotFoundError:
            summary = Summary()
        summary.add()
        processing_event.collect_events(summary)

    def count(self) -> int:
        """Return how much was written."""
        try:
            summary: Summary = self.repository.get(Summary.ID)
        except AggregateNotFoundError:
            return 0
        return summary.count


class DogCounters(Projection[CountersView]):
    """Counts dogs and tricks in a view."""

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Any) -> None:
        """Move on at other events."""
        self.view.insert_tracking(tracking)

    @process_event.register(Dog.Registered)
    def _(self, domain_event: Any, tracking: Any) -> None:
        self.view.incr_created_event_counter(tracking)

    @process_event.register(Dog.TrickAdded)
    def _(self, domain_event: Any, tracking: Any) -> None:
        self.view.incr_subsequent_event_counter(tracking)


SYSTEM = System(pipes=[[School, Diaries, Summaries]])
