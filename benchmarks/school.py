"""The application of the scenarios W5, M1, and of those that only need tables."""

from __future__ import annotations

from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


class Dog(Aggregate):
    """A registered dog."""

    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @event("TrickAdded")
    def add_trick(self, trick: str) -> None:
        """Learn a trick."""
        self.tricks.append(trick)


class School(Application[UUID]):
    """Registers dogs and teaches them tricks."""

    def register(self, name: str) -> UUID:
        """Record a new dog and return its id."""
        dog = Dog(name)
        self.save(dog)
        return dog.id

    def add_trick(self, dog_id: UUID, trick: str) -> None:
        """Record that a dog learned a trick."""
        dog: Dog = self.repository.get(dog_id)
        dog.add_trick(trick)
        self.save(dog)

    def get_tricks(self, dog_id: UUID) -> list[str]:
        """Return a dog's tricks."""
        dog: Dog = self.repository.get(dog_id)
        return dog.tricks
