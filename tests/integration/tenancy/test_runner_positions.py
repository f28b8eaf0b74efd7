"""Positions seen by other processes: the runner records those of ignored events, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import UUID

import pytest
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.projection import Projection
from eventsourcing.system import ProcessApplication, System
from eventsourcing.utils import get_topic

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import Tenancy
from tenancy.following.follower import FollowerDriver, ProjectionDriver, _FollowerDriver
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.deadlines import DEADLINE_SECONDS, wait_until


class Tricksters(ProcessApplication[UUID]):
    """Reads tricks only."""

    follow_topics: ClassVar = [get_topic(Dog.TrickAdded)]

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        """Ignore the event."""


class Tricks(Projection[SQLAlchemyTrackingRecorder]):
    """Records tricks only, and no position for other events, as is common in projections."""

    processed: ClassVar[list[int]] = []

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Any) -> None:
        self.processed.append(tracking.notification_id)

    @process_event.register(Dog.TrickAdded)
    def _(self, domain_event: Any, tracking: Any) -> None:
        self.processed.append(tracking.notification_id)
        self.view.insert_tracking(tracking)


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def fleets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Tenancy, Tenancy]]:
    """Two Tenancy objects for the same fleet, as in two processes."""
    monkeypatch.setattr("tenancy.runner.coordinator.SWEEP_INTERVAL", 0.1)
    monkeypatch.setattr("tenancy.runner.sweep._RECORD", 0.1)
    Tricks.processed.clear()
    env = {"SQLALCHEMY_URL": request.getfixturevalue(request.param)}
    system = System(pipes=[[TrainingSchool, Tricksters]])
    with Tenancy(system=system, env=env) as ours, Tenancy(system=system, env=env) as others:
        for tenants in (ours, others):
            tenants.project(TrainingSchool, DogCounters, CountersView)
            tenants.project(TrainingSchool, Tricks, SQLAlchemyTrackingRecorder)
        ours.create("acme")
        yield ours, others


def test_skipped_events_do_not_count_as_lag_elsewhere(fleets: tuple[Tenancy, Tenancy]) -> None:
    tenants, others = fleets
    with tenants.runner() as runner:
        for number in range(5):
            tenants["acme"].get(TrainingSchool).register(f"Dog {number}")
        runner.wait("acme", DEADLINE_SECONDS)
        wait_until(
            lambda: (
                {(each.state, each.lag, each.position) for each in others.followers.status()} == {("current", 0, 5)}
            ),
            "the positions are recorded",
        )
        others.runner().wait("acme")  # not started: no tenants are assigned to it
    assert Tricks.processed == [1, 2, 3, 4, 5]
    with others.runner() as runner:
        tenants["acme"].get(TrainingSchool).register("Rex", "sit")
        runner.wait("acme", DEADLINE_SECONDS)
    assert Tricks.processed == [1, 2, 3, 4, 5, 6, 7]  # no event twice


def test_positions_recorded_with_events_are_not_recorded_again(
    fleets: tuple[Tenancy, Tenancy], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants, _ = fleets
    monkeypatch.setattr("tenancy.runner.worker._SECONDS", 60.0)  # no slice ends between two events
    recorded: list[tuple[str, int]] = []

    def count(cls: type[FollowerDriver], name: str) -> None:
        record = cls.record

        def counted(self: Any, position: int, known: int) -> None:
            recorded.append((name, position))
            record(self, position, known)

        monkeypatch.setattr(cls, "record", counted)

    count(_FollowerDriver, "Tricksters")
    count(ProjectionDriver, "Tricks")
    with tenants.runner() as runner:
        school = tenants["acme"].get(TrainingSchool)
        school.register("Fido", "sit", "beg")
        runner.wait("acme", DEADLINE_SECONDS)
        assignments = runner._assignments.all()  # noqa: SLF001 (not visible otherwise)
        # A process application's position is known without a query.
        assert [assignment.recorded for assignment in assignments if assignment.pipe.follower == "Tricksters"] == [3]
        wait_until(
            lambda: {assignment.recorded for assignment in assignments} == {3}, "it is known that they are recorded"
        )
        assert recorded == []
        school.register("Rex")
        runner.wait("acme", DEADLINE_SECONDS)
        wait_until(lambda: {assignment.recorded for assignment in assignments} == {4}, "the others are recorded")
        assert sorted(recorded) == [("Tricks", 4), ("Tricksters", 4)]
