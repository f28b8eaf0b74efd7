"""The library's own test cases for projections, in every place, repeated because lost wake-ups are rare."""

from collections.abc import Callable, Iterator
from typing import Final
from unittest import TestCase

import pytest
from eventsourcing.persistence import TrackingRecorder
from eventsourcing.projection import BaseProjectionRunner
from eventsourcing.tests import projection as library

from eventsourcing_sqlalchemy.notifications.wakeups import Waiter
from tests.samples.training_school.views import CountersView
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.places import PLACES, InPlace, Place, in_places

# The library's projections use aggregates with UUIDs.
UUID_PLACES: Final = tuple(place for place in PLACES if not place.text_ids)
REPEATED_PLACES: Final = (
    Place(database="memory"),
    Place(database="file", prefix=True),
    Place(database="psycopg2", schema=True),
    Place(database="psycopg"),
)
TIMES: Final = 4
# The test case waits for one second to pass.
WAITING: Final = "test_run_forever_raises_projection_error"


def wait_patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extend the library's waits of one second to the deadline of our own tests."""
    for wait in (TrackingRecorder.wait, BaseProjectionRunner.wait):
        monkeypatch.setattr(wait, "__defaults__", (DEADLINE_SECONDS, *(wait.__defaults__ or ())[1:]))


class InClassVariable(InPlace):
    """A test case that reads its variables from its class."""

    @pytest.fixture(autouse=True)
    def in_place(
        self,
        request: pytest.FixtureRequest,
        place_variables: Callable[[Place], dict[str, str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[None]:
        """Set the variables."""
        monkeypatch.setattr(type(self), "env", place_variables(self.place), raising=False)
        if request.function.__name__ != WAITING:
            wait_patiently(monkeypatch)
        return iter([None])


@in_places(*UUID_PLACES)
class View(InPlace, library.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> library.EventCountersView:
        return self.factory.tracking_recorder(CountersView)


@in_places(*(place for place in UUID_PLACES if place not in REPEATED_PLACES), without=(WAITING,))
@in_places(*REPEATED_PLACES)
class Projection(InClassVariable, library.AggregateEventCountersProjectionTestCase):
    view_class = CountersView


@in_places(*UUID_PLACES)
class EventSourcedProjection(InClassVariable, library.EventSourcedProjectionTestCase):
    pass


# The library's third case, for tagged decisions, needs a factory for its DCB interface, which this package lacks.
REPEATED: Final = (
    (library.AggregateEventCountersProjectionTestCase, "test_event_counters_projection"),
    (library.EventSourcedProjectionTestCase, "test_event_sourced_projection"),
)


def run_again(case: type[TestCase], test: str, variables: dict[str, str], times: range) -> None:
    """Run a test of the library repeatedly on the same tables."""
    for number in times:
        # A new name for the view's table, which must be empty; the events may stay.
        env = {**variables, "SQLALCHEMY_TABLE_PREFIX": f"{variables.get('SQLALCHEMY_TABLE_PREFIX', '')}{number}_"}
        getattr(type(case.__name__, (case,), {"env": env, "view_class": CountersView})(test), test)()


@pytest.fixture
def without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make subscriptions rely on wake-ups alone."""
    monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_LISTENING", 60.0)
    monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_NOT_LISTENING", 60.0)


@pytest.mark.usefixtures("without_polling")
@pytest.mark.parametrize("place", REPEATED_PLACES, ids=str)
@pytest.mark.parametrize(("case", "test"), REPEATED, ids=["projection", "event-sourced"])
def test_no_wakeup_is_lost(  # noqa: PLR0917 (fixtures)
    case: type[TestCase],
    test: str,
    place: Place,
    place_variables: Callable[[Place], dict[str, str]],
    repeat: Callable[[int], range],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait_patiently(monkeypatch)
    run_again(case, test, place_variables(place), repeat(TIMES))


@pytest.mark.parametrize(
    ("case", "test", "place"),
    [(*REPEATED[0], REPEATED_PLACES[2]), (*REPEATED[1], REPEATED_PLACES[1])],
    ids=["projection", "event-sourced"],
)
def test_lost_wakeups_are_noticed(
    case: type[TestCase],
    test: str,
    place: Place,
    place_variables: Callable[[Place], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Proves that the test above can fail: subscriptions that only poll are too late for it."""
    monkeypatch.setattr(Waiter, "wake", lambda _: None)
    monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_LISTENING", 3.0)
    monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_NOT_LISTENING", 3.0)
    with pytest.raises(TimeoutError):
        run_again(case, test, place_variables(place), range(1))
