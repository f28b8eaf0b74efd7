"""The library's own test cases for applications, in every place."""

from collections.abc import Callable, Iterator
from datetime import datetime
from uuid import UUID

import pytest
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import (
    Aggregate,
    BaseAggregate,
    CanInitAggregate,
    CanMutateAggregate,
    MetaDomainEvent,
    event,
)
from eventsourcing.tests import application as library

from tests.support.places import PLACES, SOME_PLACES, InPlace, Place, in_places

UUID_PLACES = tuple(place for place in PLACES if not place.text_ids)
TEXT_PLACES = tuple(place for place in PLACES if place.text_ids)


class InEnvironment(InPlace):
    """A test case whose applications read the process's variables."""

    @pytest.fixture(autouse=True)
    def in_place(
        self, place_variables: Callable[[Place], dict[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        """Set the variables."""
        for name, value in place_variables(self.place).items():
            monkeypatch.setenv(name, value)
        return iter([None])


@in_places(*UUID_PLACES)
class BankAccounts(InEnvironment, library.ExampleApplicationTestCase):
    expected_factory_topic = "eventsourcing_sqlalchemy.factory:SQLAlchemyFactory"


@in_places(*(place for place in SOME_PLACES if not place.text_ids))
# The test case checks for the warning itself.
@pytest.mark.filterwarnings("always:'log' is deprecated:DeprecationWarning")
class Applications(InEnvironment, library.ApplicationTestCase):
    pass


class Dog(BaseAggregate[str]):
    """An aggregate with a text id."""

    class Event(CanMutateAggregate[str], metaclass=MetaDomainEvent):
        """An event of a dog."""

        originator_id: str
        originator_version: int
        timestamp: datetime

    class Registered(Event, CanInitAggregate[str]):
        """A dog was registered."""

        originator_topic: str
        name: str

    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @staticmethod
    def create_id(name: str) -> str:
        """Return the id."""
        return f"dog-{name}"

    @event("TrickAdded")
    def add_trick(self, trick: str) -> None:
        """Teach a trick."""
        self.tricks.append(trick)


@pytest.mark.parametrize("place", TEXT_PLACES, ids=str)
def test_aggregates_with_text_ids(place: Place, place_variables: Callable[[Place], dict[str, str]]) -> None:
    with Application[str](env=place_variables(place)) as school:
        dog = Dog(name="Fidö")
        dog.add_trick("roll over")
        recordings = school.save(dog)
        assert [recording.notification.id for recording in recordings] == [1, 2]
        copy: Dog = school.repository.get("dog-Fidö")
        assert copy.tricks == ["roll over"]
        notifications = school.notification_log.select(start=1, limit=10)
        assert [notification.originator_id for notification in notifications] == ["dog-Fidö", "dog-Fidö"]
        with pytest.raises(AggregateNotFoundError):
            school.repository.get("dog-Rex")


@pytest.mark.parametrize("place", TEXT_PLACES, ids=str)
def test_uuids_are_written_as_text_where_ids_are_text(
    place: Place, place_variables: Callable[[Place], dict[str, str]]
) -> None:
    with Application[UUID](env=place_variables(place)) as app:
        aggregate = Aggregate()
        app.save(aggregate)
        copy: Aggregate = app.repository.get(aggregate.id)
        assert copy == aggregate
        assert app.notification_log.select(start=1, limit=1)[0].originator_id == str(aggregate.id)
