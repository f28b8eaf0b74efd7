"""The school as a system: diaries of what each dog learns, and a summary of all diaries."""

from __future__ import annotations

import time
from typing import Any, ClassVar
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import AggregateNotFoundError
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.system import ProcessApplication, System
from eventsourcing.utils import get_topic

from tests.samples.training_school.application import Dog, TrainingSchool


class Diary(Aggregate):
    """Records what happened to a dog, in the order of processing."""

    class Written(Aggregate.Event):
        """An entry was added."""

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
    """Counts the entries of all diaries."""

    ID: ClassVar = uuid5(NAMESPACE_URL, "/summary")

    @event("Opened")
    def __init__(self) -> None:
        self.count = 0

    @staticmethod
    def create_id() -> UUID:
        return Summary.ID

    @event("Counted")
    def add(self) -> None:
        """Count an entry."""
        self.count += 1


class Diaries(ProcessApplication[UUID]):
    """Keeps a diary for each dog.

    Trick "poison..." raises an error, "exit..." ends the thread, and "slow N" takes N seconds.
    """

    @singledispatchmethod
    def policy(self, domain_event: Any, processing_event: Any) -> None:
        """Ignore other events."""

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
        """Return the diary of a dog."""
        diary: Diary = self.repository.get(Diary.create_id(dog_id))
        return diary.entries


class Poisoned(Exception):  # noqa: N818 (named after the event)
    """The trick cannot be processed. The message contains it, as errors of users often contain values."""


class Summaries(ProcessApplication[UUID]):
    """Counts diary entries. Follows no other events."""

    follow_topics: ClassVar = [get_topic(Diary.Written)]

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        try:
            summary: Summary = self.repository.get(Summary.ID)
        except AggregateNotFoundError:
            summary = Summary()
        summary.add()
        processing_event.collect_events(summary)

    def count(self) -> int:
        """Return the number of entries."""
        try:
            summary: Summary = self.repository.get(Summary.ID)
        except AggregateNotFoundError:
            return 0
        return summary.count


SYSTEM = System(pipes=[[TrainingSchool, Diaries, Summaries]])
