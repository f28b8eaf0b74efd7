"""The library's own test cases for recorders, in every place."""

from typing import Any

from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder, ProcessRecorder, TrackingRecorder
from eventsourcing.tests import persistence as library

from tests.support.places import PLACES, SOME_PLACES, InPlace, in_places

# These cases write thousands of events in many threads.
LONG = ("test_concurrent_no_conflicts", "test_concurrent_throughput", "test_performance")
OTHER_PLACES = tuple(place for place in PLACES if place not in SOME_PLACES)


@in_places(*SOME_PLACES)
@in_places(*OTHER_PLACES, without=LONG)
class EventsRecorder(InPlace, library.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory.aggregate_recorder()


@in_places(*SOME_PLACES)
@in_places(*OTHER_PLACES, without=LONG)
class SnapshotsRecorder(InPlace, library.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory.aggregate_recorder("snapshots")


@in_places(*SOME_PLACES)
@in_places(*OTHER_PLACES, without=LONG)
class ApplicationsRecorder(InPlace, library.ApplicationRecorderTestCase[Any]):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory.application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


@in_places(*PLACES)
class PositionsRecorder(InPlace, library.TrackingRecorderTestCase):
    def create_recorder(self) -> TrackingRecorder:
        return self.factory.tracking_recorder()


@in_places(*SOME_PLACES)
@in_places(*OTHER_PLACES, without=LONG)
class ProcessesRecorder(InPlace, library.ProcessRecorderTestCase):
    def create_recorder(self) -> ProcessRecorder:
        return self.factory.process_recorder()


@in_places(*PLACES)
class NonInterleavingIds(InPlace, library.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory.application_recorder()


@in_places(*SOME_PLACES)
class NonInterleavingIdsOfProcesses(InPlace, library.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory.process_recorder()
