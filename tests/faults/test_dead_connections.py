"""All pooled connections are dead without showing it: a firewall dropped them, or another server took over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import run_together
from tests.support.relay import Relay

CONNECTIONS = 4


class ForgetfulRelay(Relay):
    """`forget` marks all open connections; each breaks when its client sends next."""

    _forgotten: frozenset[object] = frozenset()

    def forget(self) -> int:
        """Mark the open connections; return their number."""
        ends = list(self._selector.get_map().values())
        self._forgotten = frozenset(end.data for end in ends if end.data is not None)
        return len(self._forgotten)

    def _pass_on(self, conversation: object, end: object) -> None:
        if conversation in self._forgotten:
            self.broken += 1
            self._close(conversation)  # type: ignore[arg-type]
        else:
            super()._pass_on(conversation, end)  # type: ignore[arg-type]


@pytest.fixture
def relay(database: Database) -> Iterator[ForgetfulRelay]:
    with ForgetfulRelay(database.url()) as relay:
        yield relay


def fill_pool(recorder: SQLAlchemyProcessRecorder, connections: int = CONNECTIONS) -> None:
    """Fill the pool with healthy connections."""
    barrier = threading.Barrier(connections)

    def use(executor: Executor) -> None:
        barrier.wait(10)
        executor.fetch("SELECT 1")
        barrier.wait(10)

    for _ in range(2):
        run_together([partial(recorder.datastore.run, use)] * connections)


def read(recorder: SQLAlchemyProcessRecorder) -> None:
    assert topics(recorder) == ["first"]


def append(recorder: SQLAlchemyProcessRecorder) -> None:
    recorder.insert_events(stored_events(topic="new"))
    assert topics(recorder) == ["first", "new"]


def append_in_transaction(recorder: SQLAlchemyProcessRecorder) -> None:
    with recorder.transaction():
        recorder.insert_events(stored_events(topic="new"))
    assert topics(recorder) == ["first", "new"]


@pytest.mark.parametrize("call", [read, append, append_in_transaction])
def test_call_succeeds_although_all_pooled_connections_are_dead(
    relay: ForgetfulRelay, driver: str, place: str, call: Callable[[SQLAlchemyProcessRecorder], None]
) -> None:
    with Applications(relay.url(driver), pool_size=CONNECTIONS, max_overflow=0) as apps:
        recorder = apps.recorder(place=place)
        recorder.insert_events(stored_events(topic="first"))
        fill_pool(recorder)
        assert relay.forget() == CONNECTIONS
        call(recorder)
        assert relay.broken >= 1


def test_transaction_succeeds_although_the_only_pooled_connection_is_dead(
    relay: ForgetfulRelay, driver: str, place: str
) -> None:
    """The dead connection is returned before another one is requested."""
    with Applications(relay.url(driver), pool_size=1, max_overflow=0, pool_timeout=2) as apps:
        recorder = apps.recorder(place=place)
        recorder.insert_events(stored_events(topic="first"))
        fill_pool(recorder, 1)
        assert relay.forget() == 1
        append_in_transaction(recorder)
