"""All connections of the pool are in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from eventsourcing.persistence import OperationalError, Tracking
from sqlalchemy import Connection
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres
from tests.faults.conftest import DRIVERS
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import wait_until

CALLS: dict[str, Callable[[SQLAlchemyProcessRecorder], Any]] = {
    "read": lambda recorder: recorder.max_notification_id(),
    "append": lambda recorder: recorder.insert_events(stored_events()),
    "tracking": lambda recorder: recorder.insert_tracking(Tracking("upstream", 1)),
    "transaction": lambda recorder: recorder.transaction().__enter__(),
    "create_table": lambda recorder: recorder.create_table(),
}


@pytest.fixture(params=[*DRIVERS, "sqlite"])
def tight(request: pytest.FixtureRequest, place: str) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder on a pool of two connections."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        database: Database = request.getfixturevalue("database")
        url = database.url(request.param)
    with Applications(url, pool_size=1, max_overflow=1, pool_timeout=0.1, lock_timeout=0.2) as applications:
        yield applications.recorder("Shop", place)


@pytest.mark.parametrize("call", CALLS)
def test_error_names_the_pool_and_the_remedy(tight: SQLAlchemyProcessRecorder, call: str) -> None:
    tight.insert_events(stored_events(topic="before"))
    with ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        held: list[Connection] = []

        def hold() -> bool:
            # The notifier may briefly hold a connection.
            with suppress(PoolTimeoutError):
                held.append(stack.enter_context(tight.datastore.engine.connect()))
            return len(held) == 2

        wait_until(hold, "all connections are in use")
        with pytest.raises(OperationalError, match="pool") as raised:
            threads.submit(CALLS[call], tight).result(20)
    message = str(raised.value)
    assert "all 2 of the pool were in use for 0.1 s" in message
    assert "SQLALCHEMY_POOL_SIZE=1" in message
    assert "SQLALCHEMY_MAX_OVERFLOW=1" in message
    assert isinstance(raised.value.__cause__, PoolTimeoutError)
    assert topics(tight) == ["before"]
    tight.insert_events(stored_events(topic="after"))
    assert topics(tight) == ["before", "after"]


def test_nested_transactions_of_many_applications_end_in_an_error_that_rolls_back(
    database: Database, driver: str, place: str
) -> None:
    with Applications(database.url(driver), pool_size=1, max_overflow=1, pool_timeout=0.1) as applications:
        recorders = [applications.recorder(f"Shop{number}", place) for number in range(3)]
        with pytest.raises(OperationalError, match="do not open one inside another"), ExitStack() as stack:  # noqa: PT012 (the block rolls back)
            for recorder in recorders:
                stack.enter_context(recorder.transaction())
                recorder.insert_events(stored_events())
        assert [topics(recorder) for recorder in recorders] == [[], [], []]
        for recorder in recorders:
            with recorder.transaction():
                recorder.insert_events(stored_events())


# -- nested transactions --


def open_nested(recorders: list[SQLAlchemyProcessRecorder], opened: list[SQLAlchemyProcessRecorder]) -> None:
    with ExitStack() as transactions:
        for recorder in recorders:
            transactions.enter_context(recorder.transaction())
            recorder.insert_tracking(Tracking("upstream", 1))
            opened.append(recorder)


@pytest.mark.parametrize("driver", DRIVERS)
def test_nested_transactions_on_a_small_pool_end_in_an_error_that_names_the_pool(
    postgres_server: Postgres, postgres_database: str, driver: str
) -> None:
    url = postgres_server.url(postgres_database, driver)
    with Applications(url, pool_size=1, max_overflow=1, pool_timeout=0.2) as apps:
        recorders = [apps.recorder(f"App{number}") for number in range(6)]
        for _ in range(2):
            opened: list[SQLAlchemyProcessRecorder] = []
            with pytest.raises(OperationalError) as caught:
                open_nested(recorders, opened)
            assert opened == recorders[:2]
            message = str(caught.value)
            for part in ("SQLALCHEMY_POOL_SIZE=1", "SQLALCHEMY_MAX_OVERFLOW=1", "0.2 s", "all 2", "inside another"):
                assert part in message
            # Everything was rolled back, and the pool works again.
            assert [recorder.max_tracking_id("upstream") for recorder in recorders] == [None] * 6
        # A call of another application inside a transaction needs a connection too.
        with recorders[0].transaction(), recorders[1].transaction():
            with pytest.raises(OperationalError, match="SQLALCHEMY_POOL_SIZE=1"):
                recorders[2].insert_events(stored_events())
            recorders[1].insert_events(stored_events())
        assert [len(topics(recorder)) for recorder in recorders] == [0, 1, 0, 0, 0, 0]


def test_nested_transactions_on_sqlite_end_in_an_error(sqlite_url: str) -> None:
    with Applications(sqlite_url, pool_size=1, max_overflow=1, pool_timeout=0.2, lock_timeout=0.2) as apps:
        recorders = [apps.recorder(f"App{number}") for number in range(4)]
        with recorders[0].transaction(), pytest.raises(OperationalError, match="The SQLite database is locked"):
            recorders[1].transaction().__enter__()
        with (
            recorders[0].transaction(commit=False),
            recorders[1].transaction(commit=False),
            pytest.raises(OperationalError, match="SQLALCHEMY_POOL_SIZE=1"),
        ):
            recorders[2].transaction(commit=False).__enter__()
        for recorder in recorders:
            recorder.insert_events(stored_events())
