"""The library's own test case for factories, in every place."""

from collections.abc import Callable, Iterator

import pytest
from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder, ProcessRecorder, TrackingRecorder
from eventsourcing.tests import persistence as library
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import (
    SQLAlchemyAggregateRecorder,
    SQLAlchemyApplicationRecorder,
    SQLAlchemyProcessRecorder,
    SQLAlchemyTrackingRecorder,
)
from tests.support.places import PLACES, InPlace, Place, in_places


class View(SQLAlchemyTrackingRecorder):
    """A user's view."""


@in_places(*PLACES)
class Factory(InPlace, library.InfrastructureFactoryTestCase[SQLAlchemyFactory]):
    @pytest.fixture(autouse=True)
    def in_place(self, place_variables: Callable[[Place], dict[str, str]]) -> Iterator[None]:
        """Set the test case's variables; it constructs the factory, and closes it."""
        self.env = Environment("TestCase", place_variables(self.place))
        return iter([None])

    def expected_factory_class(self) -> type[SQLAlchemyFactory]:
        return SQLAlchemyFactory

    def expected_aggregate_recorder_class(self) -> type[AggregateRecorder]:
        return SQLAlchemyAggregateRecorder

    def expected_application_recorder_class(self) -> type[ApplicationRecorder]:
        return SQLAlchemyApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[TrackingRecorder]:
        return SQLAlchemyTrackingRecorder

    def tracking_recorder_subclass(self) -> type[TrackingRecorder]:
        return View

    def expected_process_recorder_class(self) -> type[ProcessRecorder]:
        return SQLAlchemyProcessRecorder
