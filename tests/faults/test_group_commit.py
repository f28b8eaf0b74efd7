"""Group commit on real databases whose connections break: each append is stored once, or not at all."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import pytest
from eventsourcing.persistence import IntegrityError, Notification, OperationalError, StoredEvent, Tracking
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.dialects.protocols import Batch
from eventsourcing_sqlalchemy.errors import ConnectionLostError
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, twin
from tests.support.deadlines import DEADLINE_SECONDS, run_together, wait_until
from tests.support.growth import Growth
from tests.support.ordering import PollingReader, assert_in_order
from tests.support.relay import Point, Relay

WRITERS = 8


@pytest.fixture(params=["psycopg2", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    """The name of a PostgreSQL driver."""
    return str(request.param)


@pytest.fixture(params=["psycopg2", "psycopg", "sqlite"])
def recorder(request: pytest.FixtureRequest, place: str) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder on each database."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        database: Database = request.getfixturevalue("database")
        url = database.url(request.param)
    with Applications(url, pool_size=WRITERS, lock_timeout=DEADLINE_SECONDS) as applications:
        yield applications.recorder(place=place)


@dataclass
class Log:
    """The outcomes of one thread's calls."""

    acknowledged: list[tuple[list[int], list[StoredEvent]]] = field(default_factory=list)
    unknown: list[list[StoredEvent]] = field(default_factory=list)


class Batches:
    """The batches that a recorder writes, and a gate in front of the database, which is open at first."""

    def __init__(self, recorder: SQLAlchemyProcessRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: list[list[StoredEvent]] = []
        self.gate = threading.Event()
        self.gate.set()
        self._group = recorder._group_commit  # noqa: SLF001 (not visible otherwise)
        write = recorder.write_batch

        def write_batch(batch: Batch) -> list[int]:
            self.written.append(list(batch.events))
            assert self.gate.wait(DEADLINE_SECONDS)
            return write(batch)

        monkeypatch.setattr(recorder, "write_batch", write_batch)

    def wait_for(self, queued: int) -> None:
        """Wait until `count` calls queue."""
        wait_until(lambda: len(self._group._queue) >= queued, f"{queued} calls queue")  # noqa: SLF001 (as above)

    def is_at_rest(self) -> bool:
        """Return whether no batch is queued."""
        return not self._group._queue and not self._group._write_lock.locked()  # noqa: SLF001 (as above)


@pytest.fixture
def batches(recorder: SQLAlchemyProcessRecorder, monkeypatch: pytest.MonkeyPatch) -> Batches:
    return Batches(recorder, monkeypatch)


@contextmanager
def write_lock_held(batches: Batches, recorder: SQLAlchemyProcessRecorder) -> Iterator[None]:
    """Hold a recorder's write lock during the block."""
    batches.gate.clear()
    first = StoredEvent(str(uuid4()) if recorder.datastore.originator_id_type == "text" else uuid4(), 1, "first", b"")
    thread = threading.Thread(target=recorder.insert_events, args=[[first]])
    thread.start()
    try:
        wait_until(lambda: bool(batches.written), "a call holds the lock")
        yield
    finally:
        batches.gate.set()
        thread.join(DEADLINE_SECONDS)


def write_concurrently(
    recorder: SQLAlchemyProcessRecorder, batches: Batches, calls: Sequence[list[StoredEvent]]
) -> list[list[int] | Exception]:
    """Record each in its own thread, all queued during another write; return the ids or the errors."""

    def write(events: list[StoredEvent]) -> list[int] | Exception:
        try:
            return list(recorder.insert_events(events) or ())
        except Exception as error:  # noqa: BLE001 (checked by the test)
            return error

    def release() -> list[int] | Exception:
        batches.wait_for(sum(map(bool, calls)))
        batches.gate.set()
        return []

    with write_lock_held(batches, recorder):
        writes: list[Callable[[], list[int] | Exception]] = [partial(write, events) for events in calls]
        return run_together([*writes, release])[:-1]


def assert_stored_once(recorder: SQLAlchemyProcessRecorder, logs: Sequence[Log]) -> None:
    """Fail unless the ids belong to the events, and every other call is stored as a whole or not at all."""
    stored = {n.id: as_event(n) for n in recorder.select_notifications(None, 10**6)}
    keys = {(event.originator_id, event.originator_version) for event in stored.values()}
    assert len(keys) == len(stored)
    left = dict(stored)
    for log in logs:
        for ids, events in log.acknowledged:
            assert [left.pop(number) for number in ids] == events
        for events in log.unknown:
            found = [number for number, event in left.items() if event in events]
            assert [left.pop(number) for number in sorted(found)] in ([], events)
    assert not left


def as_event(notification: Notification) -> StoredEvent:
    """Return the recorded event."""
    return StoredEvent(
        notification.originator_id, notification.originator_version, notification.topic, notification.state
    )


# -- connections that break --


def write_on(recorder: SQLAlchemyProcessRecorder, log: Log, seed: int, calls: int, is_over: threading.Event) -> None:
    """Record batches of one and of several events, `calls` times or until the test is over."""
    chooser = random.Random(seed)  # noqa: S311 (chance for tests)
    try:
        while not is_over.is_set() and len(log.acknowledged) < calls:
            events = stored_events(chooser.choice((1, 1, 2, 5)), state=str(seed).encode())
            try:
                ids = list(recorder.insert_events(events) or ())
            except OperationalError:  # a connection may also be terminated while it is established
                log.unknown.append(events)
            else:
                log.acknowledged.append((ids, events))
    except BaseException:
        is_over.set()
        raise


def test_terminations_at_any_moment_lose_duplicate_and_mix_up_nothing(
    database: Database, driver: str, place: str, repeat: Callable[[int], range], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Applications(database.url(driver), pool_size=WRITERS) as applications:
        recorder = applications.recorder(place=place)
        batches = Batches(recorder, monkeypatch)
        logs, is_over = [Log() for _ in range(WRITERS)], threading.Event()

        def terminate() -> None:
            try:
                for _ in repeat(8):
                    everybody_writes = Growth([log.acknowledged for log in logs], is_over)
                    database.terminate("query NOT LIKE '%pg_stat_activity%'")
                    wait_until(everybody_writes, "every thread continues to write")
            finally:
                is_over.set()

        writers: list[Callable[[], None]] = [
            partial(write_on, recorder, log, seed, 10**6, is_over) for seed, log in enumerate(logs)
        ]
        # A read is attempted twice, and a termination can hit both.
        with PollingReader(applications.elsewhere(recorder), survives=(OperationalError,)) as reader:
            run_together([terminate, *writers], 60)
            read = reader.ids
        assert_stored_once(recorder, logs)
        assert_in_order([ids for log in logs for ids, _ in log.acknowledged], read)
        assert any(len({event.state for event in batch}) > 1 for batch in batches.written), "no group was written"
        assert batches.is_at_rest()


@pytest.fixture
def relay(database: Database) -> Iterator[Relay]:
    """A relay in front of the database."""
    with Relay(database.url()) as relay:
        yield relay


@pytest.mark.parametrize("point", ["before", "during", "after"])
def test_group_whose_connection_breaks_is_stored_once(  # noqa: PLR0917 (fixtures)
    relay: Relay, database: Database, driver: str, place: str, point: Point, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Applications(relay.url(driver), pool_size=WRITERS) as applications:
        recorder = applications.recorder(place=place)
        batches = Batches(recorder, monkeypatch)
        calls = [stored_events(1 + number % 3, topic=f"break here {number}") for number in range(WRITERS)]
        relay.break_at(point, "break here")
        results = write_concurrently(recorder, batches, calls)
        assert relay.broken == 1
        assert len(batches.written[1]) == sum(map(len, calls)), "they were not written together"
        assert len(batches.written) == 2 + WRITERS, "not each of them was written again"
        with Applications(database.url()) as others:
            stored = {n.id: as_event(n) for n in others.elsewhere(recorder).select_notifications(None, 100)}
        assert len(stored) == 1 + sum(map(len, calls))
        for ids, events in zip(results, calls, strict=True):
            assert isinstance(ids, list)
            assert [stored[number] for number in ids] == events
        assert batches.is_at_rest()


def test_group_that_breaks_repeatedly_tells_the_calls_with_unknown_outcome(
    relay: Relay, driver: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Applications(relay.url(driver), pool_size=WRITERS, commit_resolve_timeout=0) as applications:
        recorder = applications.recorder(place=place)
        batches = Batches(recorder, monkeypatch)
        relay.break_at("before", "break here", times=2)
        results = write_concurrently(recorder, batches, [stored_events(2, topic="break here") for _ in range(3)])
        assert sum(isinstance(result, ConnectionLostError) for result in results) == 1
        assert sum(isinstance(result, list) for result in results) == 2
        assert len(recorder.select_notifications(None, 100)) == 5


# -- which appends are joined --


def test_joined_writers_keep_the_order_and_get_their_own_ids(
    recorder: SQLAlchemyProcessRecorder, batches: Batches, repeat: Callable[[int], range]
) -> None:
    logs = [Log() for _ in range(WRITERS)]
    calls, is_over = len(repeat(25)), threading.Event()
    batches.gate.clear()

    def release() -> None:
        batches.wait_for(WRITERS - 1)  # behind the one that writes
        batches.gate.set()

    writers: list[Callable[[], None]] = [
        partial(write_on, recorder, log, seed, calls, is_over) for seed, log in enumerate(logs)
    ]
    with PollingReader(recorder) as reader:
        run_together([release, *writers])
    assert_in_order([ids for log in logs for ids, _ in log.acknowledged], reader.ids)
    assert_stored_once(recorder, logs)
    assert not any(log.unknown for log in logs)
    assert len(batches.written) < WRITERS * calls, "no group was written"
    assert batches.is_at_rest()


def test_taken_version_fails_only_its_call(recorder: SQLAlchemyProcessRecorder, batches: Batches) -> None:
    taken = stored_events(topic="first")
    recorder.insert_events(taken)
    calls = [stored_events(2), [*stored_events(), *taken], stored_events(3)]
    batches.written.clear()
    results = write_concurrently(recorder, batches, calls)
    assert isinstance(results[1], IntegrityError)
    assert len(batches.written[1]) == 7, "they were not written together"
    stored = {n.id: as_event(n) for n in recorder.select_notifications(None, 100)}
    assert len(stored) == 7
    for ids, events in [(results[0], calls[0]), (results[2], calls[2])]:
        assert isinstance(ids, list)
        assert [stored[number] for number in ids] == events


def test_id_too_long_for_the_index_fails_only_its_call(
    database: Database, driver: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL reports an exceeded limit (54000), not a wrong value."""
    with Applications(database.url(driver), originator_id_type="text") as applications:
        recorder = applications.recorder(place=place)
        too_long = "".join(uuid4().hex for _ in range(200))  # not compressible
        calls = [[StoredEvent(originator_id, 1, "module:Class", b"")] for originator_id in ("first", too_long, "last")]
        results = write_concurrently(recorder, Batches(recorder, monkeypatch), calls)
        assert isinstance(results[1], OperationalError)
        assert [type(result) for result in results] == [list, type(results[1]), list]


def test_call_that_writes_nothing_does_not_prevent_joining(
    recorder: SQLAlchemyProcessRecorder, batches: Batches
) -> None:
    results = write_concurrently(recorder, batches, [stored_events(), [], stored_events()])
    assert results[1] == []
    assert all(isinstance(result, list) for result in results)
    # The group was not refused because of a call without values.
    assert len([event for batch in batches.written for event in batch]) == 3, "they were written twice"


class ViewOfEvents(SQLAlchemyProcessRecorder):
    """Writes in the transaction that records events."""

    def _insert_events(self, session: Session, stored_events: Sequence[StoredEvent], **kwargs: object) -> None:
        session.connection()
        super()._insert_events(session, stored_events, **kwargs)


def in_transaction(recorder: SQLAlchemyProcessRecorder) -> object:
    with recorder.transaction():
        return recorder.insert_events(stored_events())


ALONE: dict[str, Callable[[SQLAlchemyProcessRecorder], object]] = {
    "transaction": in_transaction,
    "tracking": lambda recorder: recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1)),
    "hook": lambda recorder: recorder.insert_events(stored_events()),
}


@pytest.mark.parametrize("how", ALONE)
def test_call_that_does_more_than_append_is_never_joined(recorder: SQLAlchemyProcessRecorder, how: str) -> None:
    if how == "hook":
        recorder = twin(recorder, recorder_class=ViewOfEvents)
    with recorder._group_commit._write_lock:  # noqa: SLF001 (as during another write)
        assert run_together([partial(ALONE[how], recorder)]) == [[1]]


def test_call_that_only_appends_queues(recorder: SQLAlchemyProcessRecorder, batches: Batches) -> None:
    """Proves that the test above can fail."""
    with write_lock_held(batches, recorder):
        thread = threading.Thread(target=recorder.insert_events, args=[stored_events()])
        thread.start()
        batches.wait_for(1)
    thread.join(DEADLINE_SECONDS)
    assert len(batches.written) == 2
    assert batches.is_at_rest()
