"""The TrainingSchool of the README: dogs that learn tricks."""

from uuid import UUID

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder


class Dog(Aggregate):
    """A dog that learns."""

    class Registered(Aggregate.Created):
        """The dog was registered."""

        name: str

    class TrickAdded(Aggregate.Event):
        """The dog learned a trick."""

        trick: str

    @event(Registered)
    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @event(TrickAdded)
    def add_trick(self, trick: str) -> None:
        """Learn a trick."""
        self.tricks.append(trick)


class TrainingSchool(Application[UUID]):
    """Trains dogs."""

    recorder: SQLAlchemyApplicationRecorder

    def register(self, name: str, *tricks: str) -> UUID:
        """Register a dog that knows tricks: one event, and one for each trick."""
        dog = Dog(name)
        for trick in tricks:
            dog.add_trick(trick)
        self.save(dog)
        return dog.id

    def teach(self, dog_id: UUID, trick: str) -> None:
        """Teach a dog a trick."""
        dog: Dog = self.repository.get(dog_id)
        dog.add_trick(trick)
        self.save(dog)

    def knows(self, dog_id: UUID) -> bool:
        """Return whether the dog is registered."""
        try:
            self.repository.get(dog_id)
        except AggregateNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        """Return the names of all dogs, in the order of registration."""
        notifications = self.recorder.select_notifications(start=None, limit=1000)
        dogs: dict[UUID | str, Dog] = {}
        for notification in notifications:
            assert isinstance(notification.originator_id, UUID)
            dogs.setdefault(notification.originator_id, self.repository.get(notification.originator_id))
        return [dog.name for dog in dogs.values()]
