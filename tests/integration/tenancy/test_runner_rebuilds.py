"""Recorded positions moved by an operator while a runner is up: it resumes from there, and reports it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.system import ProcessApplication, System

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import Tenancy
from tenancy.errors import NotCaughtUp
from tenancy.runner.monitor import FollowerStatus
from tests.integration.tenancy.test_runner_positions import Tricks
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.deadlines import DEADLINE_SECONDS

ALL_DRIVERS = pytest.mark.parametrize("tenants", ["psycopg2", "psycopg", "pg8000", "sqlite"], indirect=True)


class Counting(ProcessApplication[UUID]):
    """Counts events, and records nothing."""

    processed: ClassVar[list[int]] = []

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        self.processed.append(processing_event.tracking.notification_id)


def fleet(url: str) -> Tenancy:
    tenants = Tenancy(system=System(pipes=[[TrainingSchool, Counting]]), env={"SQLALCHEMY_URL": url})
    tenants.project(TrainingSchool, DogCounters, CountersView)
    tenants.project(TrainingSchool, Tricks, SQLAlchemyTrackingRecorder)
    return tenants


@pytest.fixture(params=["psycopg2", "sqlite"])
def tenants(request: pytest.FixtureRequest) -> Iterator[Tenancy]:
    """A fleet with one tenant and ten dogs."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        server = request.getfixturevalue("postgres_server")
        url = server.url(request.getfixturevalue("postgres_database"), request.param)
    Counting.processed.clear()
    with fleet(url) as tenants:
        tenants.create("acme")
        register(tenants, 10)
        yield tenants


def register(tenants: Tenancy, count: int = 1) -> None:
    for _ in range(count):
        tenants["acme"].get(TrainingSchool).register("Fido")


def view_of(tenants: Tenancy) -> CountersView:
    view = tenants.projection(DogCounters, "acme").view
    assert isinstance(view, CountersView)
    return view


def restore(view: CountersView, position: int, count: int) -> None:
    """Restore the view and its position to an earlier count of dogs."""
    with view.transaction() as session:
        session.execute(sa.delete(view.tracking_table))
        session.execute(sa.delete(view.counters))
        if position:
            session.execute(
                sa.insert(view.tracking_table).values(application_name=TrainingSchool.name, notification_id=position)
            )
            session.execute(sa.insert(view.counters).values(name="created", value=count))


def status(tenants: Any, follower: str = DogCounters.name) -> FollowerStatus:
    """Return a follower's status from a fleet or a runner."""
    found: list[FollowerStatus] = [each for each in tenants.status() if each.follower == follower]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def never_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenancy.runner.comparison.Comparison.detect_rewinds", lambda *_: None)


@pytest.mark.usefixtures("never_swept")
@pytest.mark.parametrize("position", [0, 4])
@ALL_DRIVERS
def test_emptied_view_is_rebuilt_at_the_next_event(tenants: Tenancy, position: int) -> None:
    view = view_of(tenants)
    with tenants.runner() as runner:
        runner.wait("acme", DEADLINE_SECONDS)
        assert view.get_created_event_counter() == 10
        restore(view, position, position)
        assert (status(runner).state, status(runner).lag) == ("behind", 10 - position)
        with pytest.raises(NotCaughtUp):
            runner.wait("acme", timeout=0)
        register(tenants)
        runner.wait("acme", DEADLINE_SECONDS)
        assert view.get_created_event_counter() == 11
        assert (status(runner).state, status(runner).lag) == ("current", 0)
    assert Counting.processed == list(range(1, 12))


def test_emptied_view_is_rebuilt_without_an_event(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sweep compares only a part of the followers."""
    monkeypatch.setattr("tenancy.runner.coordinator.SWEEP_INTERVAL", 0.1)
    monkeypatch.setattr("tenancy.runner.sweep._RECORD", 0.1)
    monkeypatch.setattr("tenancy.runner.comparison._BATCH", 1)
    view = view_of(tenants)
    with tenants.runner() as runner:
        runner.wait("acme", DEADLINE_SECONDS)
        for position in (0, 7):
            restore(view, position, position)
            runner.wait("acme", DEADLINE_SECONDS)
            assert view.get_created_event_counter() == 10
            assert {each.state for each in runner.status()} == {"current"}
    assert Counting.processed == list(range(1, 11))


@pytest.mark.usefixtures("never_swept")
def test_view_emptied_during_a_slice(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The position's row is deleted, and the next event must not insert a new one."""
    count = CountersView.incr_created_event_counter
    emptied_at = [3, 5]

    def and_empty(view: CountersView, tracking: Any) -> None:
        if emptied_at and tracking.notification_id == emptied_at[0]:
            del emptied_at[0]
            restore(view, 0, 0)
        count(view, tracking)

    monkeypatch.setattr(CountersView, "incr_created_event_counter", and_empty)
    with tenants.runner() as runner:
        runner.wait("acme", DEADLINE_SECONDS)
        assert emptied_at == []
        assert view_of(tenants).get_created_event_counter() == 10


@pytest.mark.usefixtures("never_swept")
def test_process_application_with_a_position_set_back(tenants: Tenancy) -> None:
    recorder: Any = tenants["acme"].get(Counting).recorder
    with tenants.runner() as runner:
        runner.wait("acme", DEADLINE_SECONDS)
        with recorder.transaction() as session:
            session.execute(sa.update(recorder.tracking_table).values(notification_id=7))
        register(tenants)
        runner.wait("acme", DEADLINE_SECONDS)
        assert recorder.max_tracking_id(TrainingSchool.name) == 11
    # Recording the eleventh is refused at first, so it is processed twice.
    assert Counting.processed == [*range(1, 12), 8, 9, 10, 11]


def test_position_set_forward_skips_events(tenants: Tenancy) -> None:
    view = view_of(tenants)
    with tenants.runner() as runner:
        runner.wait("acme", DEADLINE_SECONDS)
        restore(view, 13, 10)
        assert (status(tenants.followers).state, status(runner).state) == ("ahead", "ahead")
        register(tenants, 5)
        runner.wait("acme", DEADLINE_SECONDS)
        assert view.get_created_event_counter() == 12
        assert status(runner).state == status(tenants.followers).state == "current"


def test_unrecorded_position_does_not_count_as_set_back(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep does not make a projection process ignored events again."""
    monkeypatch.setattr("tenancy.runner.coordinator.SWEEP_INTERVAL", 0.05)
    monkeypatch.setattr("tenancy.runner.sweep._RECORD", 0.05)
    Tricks.processed.clear()
    with tenants.runner() as runner:
        for _ in range(5):
            register(tenants)
            runner.wait("acme", DEADLINE_SECONDS)
    assert Tricks.processed == list(range(1, 16))
