"""Conditional tracking: a position is recorded only if the recorded one was not set back, in one statement."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import DataError, IntegrityError, Tracking

from eventsourcing_sqlalchemy.recorders import ConditionalTracking, SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres
from tests.support.applications import Applications, stored_events
from tests.support.deadlines import wait_until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
DRIVERS = ["psycopg2", "psycopg", "pg8000"]


@pytest.fixture(params=[*DRIVERS, "sqlite"])
def recorder(request: pytest.FixtureRequest) -> Iterator[SQLAlchemyProcessRecorder]:
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.url(request.getfixturevalue("postgres_database"), request.param)
    with Applications(url) as applications:
        yield applications.recorder()


def alone(recorder: SQLAlchemyProcessRecorder, tracking: Tracking) -> None:
    recorder.insert_tracking(tracking)


def with_an_event(recorder: SQLAlchemyProcessRecorder, tracking: Tracking) -> None:
    recorder.insert_events(stored_events(1), tracking=tracking)


def with_events(recorder: SQLAlchemyProcessRecorder, tracking: Tracking) -> None:
    recorder.insert_events(stored_events(3), tracking=tracking)


def in_a_transaction(recorder: SQLAlchemyProcessRecorder, tracking: Tracking) -> None:
    with recorder.transaction():
        recorder.insert_events(stored_events(2), tracking=tracking)


@pytest.mark.parametrize("insert", [alone, with_an_event, with_events, in_a_transaction])
def test_position_set_back_is_noticed(
    recorder: SQLAlchemyProcessRecorder, insert: Callable[[Any, Tracking], None]
) -> None:
    recorder.insert_tracking(Tracking("upstream", 3))
    for number, at_least in ((4, 3), (6, 1)):
        insert(recorder, ConditionalTracking("upstream", number, at_least))
        assert recorder.max_tracking_id("upstream") == number
    before = recorder.max_notification_id()
    for number, at_least in ((6, 3), (5, 3), (9, 7)):  # already recorded, already passed, set back
        with pytest.raises(IntegrityError, match=f"'upstream' is not between {at_least} and {number - 1}"):
            insert(recorder, ConditionalTracking("upstream", number, at_least))
        assert recorder.max_tracking_id("upstream") == 6
    with recorder.transaction() as session:
        session.execute(sa.delete(recorder.tracking_table))
    with pytest.raises(IntegrityError):
        insert(recorder, ConditionalTracking("upstream", 9, 6))
    assert recorder.max_tracking_id("upstream") is None
    assert recorder.max_notification_id() == before


def test_position_that_is_not_a_number_is_refused(recorder: SQLAlchemyProcessRecorder) -> None:
    at_least: Any = "1"
    with pytest.raises(DataError, match="The at_least of a tracking position"):
        recorder.insert_tracking(ConditionalTracking("upstream", 2, at_least))


@pytest.mark.parametrize("insert", [alone, with_an_event, with_events, in_a_transaction])
def test_position_that_is_being_deleted_is_waited_for(
    postgres_url: str, insert: Callable[[Any, Tracking], None]
) -> None:
    with Applications(postgres_url) as applications:
        recorder = applications.recorder()
        recorder.insert_tracking(Tracking("upstream", 3))
        caught: list[BaseException] = []

        def record() -> None:
            try:
                insert(recorder, ConditionalTracking("upstream", 4, 3))
            except IntegrityError as error:
                caught.append(error)

        thread = threading.Thread(target=record)
        engine = sa.create_engine(postgres_url)
        with engine.begin() as connection:
            connection.execute(sa.delete(recorder.tracking_table))
            thread.start()
            wait_until(lambda: connection.scalar(sa.text(WAITING)) == 1, "it waits for the row")
        thread.join()
        engine.dispose()
        assert len(caught) == 1
        assert recorder.max_tracking_id("upstream") is None
