"""The TrainingSchool of the README, with a table that SQLAlchemy's ORM writes beside the events."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder


class Dog(Aggregate):
    """A dog that learns."""

    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @event("TrickAdded")
    def add_trick(self, trick: str) -> None:
        """Learn a trick."""
        self.tricks.append(trick)


class TrainingSchool(Application[UUID]):
    """Trains dogs."""

    recorder: SQLAlchemyApplicationRecorder

    def register(self, name: str) -> UUID:
        """Register a dog."""
        dog = Dog(name)
        self.save(dog)
        return dog.id

    def knows(self, dog_id: UUID) -> bool:
        """Tell whether the dog is registered."""
        try:
            self.repository.get(dog_id)
        except AggregateNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        """Return the names of all dogs, in the order in which they were registered."""
        notifications = self.recorder.select_notifications(start=None, limit=1000)
        dogs: dict[UUID | str, Dog] = {}
        for notification in notifications:
            assert isinstance(notification.originator_id, UUID)
            dogs.setdefault(notification.originator_id, self.repository.get(notification.originator_id))
        return [dog.name for dog in dogs.values()]


class Base(DeclarativeBase):
    """The user's own tables."""


class Invoice(Base):
    """A row beside the events."""

    __tablename__ = "invoice"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


def invoices(engine: sa.Engine) -> list[int]:
    """Return the numbers of all invoices that are committed."""
    with Session(engine) as session:
        return sorted(session.scalars(sa.select(Invoice.number)))


@contextmanager
def own_engine(url: str) -> Iterator[sa.Engine]:
    """Yield an engine that belongs to the user, on a database in which the user's tables have been made."""
    engine = sa.create_engine(url)
    try:
        Base.metadata.create_all(engine)
        yield engine
    finally:
        engine.dispose()
