"""Calls and pool settings: recycling, pings, NullPool, disposal, forks."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import PersistenceError
from sqlalchemy.pool import NullPool

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from tests.isolation.test_checkout import assert_usable, checked_out, datastore, open_datastore, pid, url
from tests.support.activity import Activity
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import wait_until
from tests.support.forked import forks, in_child

__all__ = ["datastore", "open_datastore", "url"]  # the fixtures

Open = Callable[..., SQLAlchemyDatastore]


@pytest.mark.parametrize("recycle", [0, 3600])
def test_connection_is_recycled_when_it_is_too_old(open_datastore: Open, recycle: int) -> None:
    datastore = open_datastore(pool_size=1, max_overflow=0, pool_recycle=recycle)
    first = datastore.run(pid)
    # The maximum age is zero, so it is too old once the clock has moved.
    wait_until(lambda: (datastore.run(pid) == first) == (recycle == 3600), "an old connection is replaced")
    assert_usable(datastore)


@pytest.mark.parametrize("by", ["engine option", "setting"])
def test_pre_ping_applies_to_calls(open_datastore: Open, url: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Applications(url, pool_pre_ping="yes") as apps:
        datastore = open_datastore(pool_pre_ping=True) if by == "engine option" else apps.factory().datastore
        datastore.run(pid)
        pings: list[object] = []
        ping = datastore.engine.dialect.do_ping

        def note(connection: Any) -> bool:
            pings.append(connection)
            return ping(connection)

        monkeypatch.setattr(datastore.engine.dialect, "do_ping", note)
        for number in range(1, 4):
            datastore.run(pid)
            assert len(pings) == number


def test_null_pool_opens_and_closes_a_connection_per_call(open_datastore: Open, activity: Activity) -> None:
    datastore = open_datastore(poolclass=NullPool)
    assert len({datastore.run(pid) for _ in range(3)}) == 3
    with pytest.raises(PersistenceError):
        datastore.run(divide_by_zero)
    activity.wait_until_none()


def divide_by_zero(executor: Executor) -> None:
    executor.fetch("SELECT 1")
    raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
def test_engine_may_be_disposed_of_while_a_connection_is_in_use(
    datastore: SQLAlchemyDatastore, activity: Activity
) -> None:
    def dispose(executor: Executor) -> int:
        datastore.engine.dispose()
        return pid(executor)

    first = datastore.run(pid)
    assert datastore.run(dispose) == first
    assert checked_out(datastore) == 0
    assert datastore.run(pid) != first
    assert_usable(datastore)
    gc.collect()  # a pool is not collected on its own
    wait_until(lambda: activity.connections() == 1, "the old pool's connection is closed")


def test_datastore_may_be_closed_while_a_connection_is_in_use(
    datastore: SQLAlchemyDatastore, activity: Activity
) -> None:
    def close(executor: Executor) -> int:
        datastore.close()
        return pid(executor)

    assert datastore.run(close) > 0
    activity.wait_until_none()


@forks
def test_child_of_an_idle_parent_has_its_own_connections(datastore: SQLAlchemyDatastore) -> None:
    first = datastore.run(pid)
    assert in_child(lambda: [datastore.run(pid), datastore.run(pid), checked_out(datastore)])[0] != first
    assert datastore.run(pid) == first
    assert_usable(datastore)


@forks
def test_child_forked_while_a_connection_is_in_use_does_not_touch_it(datastore: SQLAlchemyDatastore) -> None:
    def fork(executor: Executor) -> tuple[int, int]:
        child = in_child(lambda: datastore.run(pid))
        return pid(executor), int(child)

    here, there = datastore.run(fork)
    assert here != there
    assert datastore.run(pid) == here
    assert_usable(datastore)


@pytest.mark.parametrize("is_listening", [False, True])
def test_idle_connection_that_was_terminated_is_replaced_transparently(
    open_datastore: Open, activity: Activity, is_listening: bool
) -> None:
    datastore = open_datastore(pool_size=3, max_overflow=0)
    if is_listening:
        sa.event.listen(datastore.engine, "checkin", lambda *_: None)
    held: list[Any] = [datastore.engine.connect() for _ in range(3)]
    for connection in held:
        connection.close()
    for _ in range(2):
        before = {datastore.run(pid) for _ in range(3)}
        activity.terminate()
        calls = [datastore.run(pid) for _ in range(4)]
        assert not before & set(calls)
        assert checked_out(datastore) == 0
    assert activity.connections() <= 3


def test_recorder_writes_and_reads_on_a_terminated_connection(url: str, activity: Activity) -> None:
    with Applications(url, pool_size=1, max_overflow=0) as apps:
        recorder = apps.recorder()
        for number in range(1, 4):
            activity.terminate()
            recorder.insert_events(stored_events(topic=str(number)))
            activity.terminate()
            assert len(topics(recorder)) == number
