"""Recorded positions that are moved by hand while a runner is up: it goes on from where they are, and says so."""

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
from tests.contract.counters_view import CountersView
from tests.tenancy.kennel import DogCounters, School
from tests.tenancy.test_runner_positions import Tricks

ALL_DRIVERS = pytest.mark.parametrize("tenants", ["psycopg2", "psycopg", "pg8000", "sqlite"], indirect=True)


class Counting(ProcessApplication[UUID]):
    """Makes nothing of events, but counts them."""

    processed: ClassVar[list[int]] = []

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        self.processed.append(processing_event.tracking.notification_id)


def fleet(url: str) -> Tenancy:
    tenants = Tenancy(system=System(pipes=[[School, Counting]]), env={"SQLALCHEMY_URL": url})
    tenants.project(School, DogCounters, CountersView)
    tenants.project(School, Tricks, SQLAlchemyTrackingRecorder)
    return tenants


@pytest.fixture(params=["psycopg2", "sqlite"])
def tenants(request: pytest.FixtureRequest) -> Iterator[Tenancy]:
    """A fleet with one tenant that has ten dogs."""
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
        tenants["acme"].get(School).register("Fido")


def view_of(tenants: Tenancy) -> CountersView:
    view = tenants.projection(DogCounters, "acme").view
    assert isinstance(view, CountersView)
    return view


def restore(view: CountersView, position: int, count: int) -> None:
    """Make the view, and its position, what they were when it had counted some dogs."""
    with view.transaction() as session:
        session.execute(sa.delete(view.tracking_table))
        session.execute(sa.delete(view.id_sequences))
        if position:
            session.execute(
                sa.insert(view.tracking_table).values(application_name=School.name, notification_id=position)
            )
            session.execute(sa.insert(view.id_sequences).values(name="created", value=count))


def status(tenants: Any, follower: str = DogCounters.name) -> FollowerStatus:
    """Return what a fleet, or a runner, says of a follower."""
    found: list[FollowerStatus] = [each for each in tenants.status() if each.follower == follower]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def never_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenancy.runner.sweep.Sweep._detect_rewinds", lambda *_: None)


@pytest.mark.usefixtures("never_swept")
@pytest.mark.parametrize("position", [0, 4])
@ALL_DRIVERS
def test_view_that_is_emptied_is_filled_when_an_event_comes(tenants: Tenancy, position: int) -> None:
    view = view_of(tenants)
    with tenants.runner() as runner:
        runner.wait("acme")
        assert view.get_created_event_counter() == 10
        restore(view, position, position)
        assert (status(runner).state, status(runner).lag) == ("behind", 10 - position)
        with pytest.raises(NotCaughtUp):
            runner.wait("acme", timeout=0)
        register(tenants)
        runner.wait("acme")
        assert view.get_created_event_counter() == 11
        assert (status(runner).state, status(runner).lag) == ("current", 0)
    assert Counting.processed == list(range(1, 12))


def test_view_that_is_emptied_is_filled_when_no_event_comes(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a fleet in which the followers are compared in turn."""
    monkeypatch.setattr("tenancy.runner.coordinator._SWEEP", 0.1)
    monkeypatch.setattr("tenancy.runner.sweep._RECORD", 0.1)
    monkeypatch.setattr("tenancy.runner.sweep._COMPARE_BATCH", 1)
    view = view_of(tenants)
    with tenants.runner() as runner:
        runner.wait("acme")
        for position in (0, 7):
            restore(view, position, position)
            runner.wait("acme")
            assert view.get_created_event_counter() == 10
            assert {each.state for each in runner.status()} == {"current"}
    assert Counting.processed == list(range(1, 11))


@pytest.mark.usefixtures("never_swept")
def test_view_that_is_emptied_in_the_middle_of_a_turn(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of the position is gone, and the next event must not make a new one."""
    count = CountersView.incr_created_event_counter
    emptied_at = [3, 5]

    def and_empty(view: CountersView, tracking: Any) -> None:
        if emptied_at and tracking.notification_id == emptied_at[0]:
            del emptied_at[0]
            restore(view, 0, 0)
        count(view, tracking)

    monkeypatch.setattr(CountersView, "incr_created_event_counter", and_empty)
    with tenants.runner() as runner:
        runner.wait("acme")
        assert emptied_at == []
        assert view_of(tenants).get_created_event_counter() == 10


@pytest.mark.usefixtures("never_swept")
def test_process_application_whose_position_is_set_back(tenants: Tenancy) -> None:
    recorder: Any = tenants["acme"].get(Counting).recorder
    with tenants.runner() as runner:
        runner.wait("acme")
        with recorder.transaction() as session:
            session.execute(sa.update(recorder.tracking_table).values(notification_id=7))
        register(tenants)
        runner.wait("acme")
        assert recorder.max_tracking_id(School.name) == 11
    # The eleventh is refused at first: what its policy has made is not recorded.
    assert Counting.processed == [*range(1, 12), 8, 9, 10, 11]


def test_position_that_is_set_forward_skips_events(tenants: Tenancy) -> None:
    view = view_of(tenants)
    with tenants.runner() as runner:
        runner.wait("acme")
        restore(view, 13, 10)
        assert (status(tenants.followers).state, status(runner).state) == ("ahead", "ahead")
        register(tenants, 5)
        runner.wait("acme")
        assert view.get_created_event_counter() == 12
        assert status(runner).state == status(tenants.followers).state == "current"


def test_position_that_nothing_recorded_is_not_taken_for_set_back(
    tenants: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a projection has made nothing of is not processed again, whatever the sweep finds."""
    monkeypatch.setattr("tenancy.runner.coordinator._SWEEP", 0.05)
    monkeypatch.setattr("tenancy.runner.sweep._RECORD", 0.05)
    Tricks.processed.clear()
    with tenants.runner() as runner:
        for _ in range(5):
            register(tenants)
            runner.wait("acme")
    assert Tricks.processed == list(range(1, 16))
