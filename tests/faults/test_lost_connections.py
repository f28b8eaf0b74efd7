"""The server terminates a connection in every phase of a call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, OperationalError, StoredEvent, Tracking
from sqlalchemy import text

from eventsourcing_sqlalchemy.dialects.postgresql import writer as postgresql_writer
from eventsourcing_sqlalchemy.dialects.protocols import Batch
from eventsourcing_sqlalchemy.engines.pool import ConnectionPool
from eventsourcing_sqlalchemy.errors import ConnectionLostError
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import run_together, wait_until
from tests.support.growth import Growth
from tests.support.relay import Point, Relay

Call = Callable[[SQLAlchemyProcessRecorder], Any]

SOURCE = UUID(int=7)


def _transaction(recorder: SQLAlchemyProcessRecorder) -> list[int] | None:
    with recorder.transaction() as session:
        session.execute(sa.text("SELECT 1"))
        return list(recorder.insert_events(stored_events()) or ())


def _read_in_transaction(recorder: SQLAlchemyProcessRecorder) -> object:
    with recorder.transaction(commit=False):
        return recorder.select_events(SOURCE)


def _engine(recorder: SQLAlchemyProcessRecorder) -> object:
    with recorder.datastore.engine.connect() as connection:
        return connection.scalar(sa.text("SELECT 1"))


CALLS: dict[str, Call] = {
    "select_events": lambda recorder: recorder.select_events(SOURCE),
    "select_notifications": lambda recorder: recorder.select_notifications(1, 10),
    "max_notification_id": lambda recorder: recorder.max_notification_id(),
    "max_tracking_id": lambda recorder: recorder.max_tracking_id("upstream"),
    "append one event": lambda recorder: recorder.insert_events(stored_events()),
    "append events": lambda recorder: recorder.insert_events(stored_events(3)),
    "append with tracking": lambda recorder: recorder.insert_events(stored_events(), tracking=Tracking("upstream", 2)),
    "tracking": lambda recorder: recorder.insert_tracking(Tracking("upstream", 2)),
    "create_table": lambda recorder: recorder.create_table(),
}
CALLS_OF_SESSIONS: dict[str, Call] = {
    "append in transaction": _transaction,
    "reading transaction": _read_in_transaction,
    "engine": _engine,
}


@contextmanager
def held(database: Database, statement: str) -> Iterator[Callable[[], None]]:
    """Hold a statement's locks until the block ends or the yielded function is called."""
    engine = database.engine.execution_options(isolation_level="READ COMMITTED")
    with engine.connect() as connection:
        connection.execute(text(statement))
        yield connection.rollback


def hold_writer_lock(recorder: SQLAlchemyProcessRecorder) -> str:
    return f"SELECT pg_advisory_xact_lock({recorder.wakeup_key})"


def fill_pool(recorder: SQLAlchemyProcessRecorder, connections: int = 3) -> None:
    """Fill the pool with several idle connections."""
    with ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(recorder.datastore.engine.connect())


# -- idle --


def assert_call_succeeds(recorder: SQLAlchemyProcessRecorder, call: str) -> None:
    """Call it on a recorder with two events; afterwards there are two, plus those that the call appended."""
    result = (CALLS | CALLS_OF_SESSIONS)[call](recorder)
    appended = result if call.startswith("append") else []
    assert [n.id for n in recorder.select_notifications(None, 10)] == [1, 2, *appended]


@pytest.mark.parametrize("call", CALLS | CALLS_OF_SESSIONS)
def test_first_call_after_idle_connections_were_terminated_succeeds(
    applications: Applications, database: Database, place: str, call: str
) -> None:
    recorder = applications.recorder(place=place)
    recorder.insert_events(stored_events(2, SOURCE), tracking=Tracking("upstream", 1))
    fill_pool(recorder)
    assert database.terminate() >= 3
    assert_call_succeeds(recorder, call)


_engine_of_a_user: list[sa.Engine] = []


def engine_of_a_user() -> sa.Engine:
    """The engine that SQLALCHEMY_ENGINE_TOPIC names."""
    return _engine_of_a_user[-1]


@pytest.fixture
def their_engine(database: Database, driver: str) -> Iterator[sa.Engine]:
    """A user's engine without any precaution."""
    engine = sa.create_engine(database.url(driver))
    _engine_of_a_user.append(engine)
    yield engine
    _engine_of_a_user.pop()
    engine.dispose()


@pytest.mark.usefixtures("their_engine")
@pytest.mark.parametrize("call", CALLS)
def test_first_call_on_a_users_engine_succeeds_too(
    applications: Applications, database: Database, place: str, call: str
) -> None:
    recorder = applications.recorder(place=place, engine_topic=f"{__name__}:engine_of_a_user")
    recorder.insert_events(stored_events(2, SOURCE), tracking=Tracking("upstream", 1))
    fill_pool(recorder)
    assert database.terminate() >= 3
    assert_call_succeeds(recorder, call)


def test_without_a_check_and_a_second_attempt_the_first_call_would_fail(
    applications: Applications, database: Database, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConnectionPool, "_checked_out", lambda *_: None)
    recorder = applications.recorder(place=place)
    assert database.terminate() >= 1
    with pytest.raises(ConnectionLostError):
        recorder.datastore.run(lambda executor: executor.fetch("SELECT 1"))


# -- running --


def test_read_whose_connection_is_terminated_is_repeated(
    applications: Applications, database: Database, place: str
) -> None:
    recorder = applications.recorder(place=place)
    recorder.insert_events(stored_events(2, SOURCE))
    with (
        ThreadPoolExecutor(1) as threads,
        held(database, f"LOCK TABLE {recorder.events_table} IN ACCESS EXCLUSIVE MODE") as release,
    ):
        reading = threads.submit(recorder.select_events, SOURCE)
        database.wait_for_blocked()
        assert database.terminate("wait_event_type = 'Lock'") == 1
        database.wait_for_blocked()  # the second time
        release()
        assert len(reading.result(20)) == 2


WRITES: dict[str, tuple[int, Tracking | None]] = {
    "event": (1, None),
    "events and tracking": (3, Tracking("upstream", 1)),
    "tracking": (0, Tracking("upstream", 1)),
}
# What is written, and whether in one statement or, like large batches, in a transaction of several.
FORMS = [("event", "statement"), ("events and tracking", "statement"), ("events and tracking", "rows")]


def write(recorder: SQLAlchemyProcessRecorder, events: Sequence[StoredEvent], tracking: Tracking | None) -> list[int]:
    """Write as an application does."""
    if not events:
        assert tracking is not None
        recorder.insert_tracking(tracking)
        return []
    ids = recorder.insert_events(events, tracking=tracking) if tracking else recorder.insert_events(events)
    return list(ids or ())


def assert_stored_once(
    recorder: SQLAlchemyProcessRecorder, events: Sequence[StoredEvent], tracking: Tracking | None, ids: list[int]
) -> None:
    stored = recorder.select_notifications(None, 1000)
    assert [(n.originator_id, n.originator_version, n.topic, n.state) for n in stored] == [
        (e.originator_id, e.originator_version, e.topic, e.state) for e in events
    ]
    assert [notification.id for notification in stored] == ids
    assert recorder.max_tracking_id("upstream") == (tracking.notification_id if tracking else None)


@pytest.fixture
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The form in which events are written."""
    if request.param == "rows":
        monkeypatch.setattr(postgresql_writer, "MAX_ARRAY_BYTES", 1)
    return str(request.param)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(("what", "form"), FORMS, indirect=["form"])
def test_append_that_is_terminated_while_it_waits_for_the_writer_lock_is_stored_once(
    applications: Applications, database: Database, place: str, what: str
) -> None:
    count, tracking = WRITES[what]
    recorder = applications.recorder(place=place)
    events = stored_events(count)
    with ThreadPoolExecutor(1) as threads, held(database, hold_writer_lock(recorder)) as release:
        writing = threads.submit(write, recorder, events, tracking)
        database.wait_for_blocked()
        assert database.terminate("wait_event_type = 'Lock'") == 1
        database.wait_for_blocked()
        release()
        ids = writing.result(20)
    assert_stored_once(recorder, events, tracking, ids)


def test_tracking_that_is_terminated_while_it_waits_for_its_row_is_stored(
    applications: Applications, database: Database, place: str
) -> None:
    recorder = applications.recorder(place=place)
    recorder.insert_tracking(Tracking("upstream", 1))
    lock_row = f"SELECT 1 FROM {recorder.tracking_table} FOR UPDATE"
    with ThreadPoolExecutor(1) as threads, held(database, lock_row) as release:
        writing = threads.submit(recorder.insert_tracking, Tracking("upstream", 2))
        database.wait_for_blocked()
        assert database.terminate("wait_event_type = 'Lock'") == 1
        database.wait_for_blocked()
        release()
        writing.result(20)
    assert recorder.max_tracking_id("upstream") == 2


def test_append_that_is_terminated_repeatedly_reports_an_unknown_outcome(
    applications: Applications, database: Database, place: str
) -> None:
    recorder = applications.recorder(place=place, commit_resolve_timeout=0)
    events = stored_events(2)
    with ThreadPoolExecutor(1) as threads, held(database, hold_writer_lock(recorder)):
        writing = threads.submit(recorder.insert_events, events, tracking=Tracking("upstream", 1))
        for _ in range(2):
            database.wait_for_blocked()
            assert database.terminate("wait_event_type = 'Lock'") == 1
        with pytest.raises(ConnectionLostError, match="unknown whether the events were recorded") as raised:
            writing.result(20)
    assert raised.value.__cause__ is not None
    assert raised.value.events == [(event.originator_id, event.originator_version) for event in events]
    assert raised.value.tracking == Tracking("upstream", 1)
    assert recorder.insert_events(events, tracking=Tracking("upstream", 1)) is not None


def test_terminated_transaction_writes_nothing_and_the_next_one_works(
    applications: Applications, database: Database, place: str
) -> None:
    recorder = applications.recorder(place=place)
    with pytest.raises(OperationalError) as raised, recorder.transaction() as session:  # noqa: PT012 (the block rolls back)
        recorder.insert_events(stored_events(topic="before"))
        assert database.terminate() >= 1
        session.execute(text("SELECT 1"))
    assert raised.value.__cause__ is not None
    with pytest.raises(OperationalError), recorder.transaction():  # noqa: PT012 (the block rolls back)
        recorder.insert_events(stored_events(topic="before"))
        assert database.terminate() >= 1
        recorder.insert_events(stored_events(topic="between"))
    with pytest.raises(OperationalError), recorder.transaction():  # noqa: PT012 (the block rolls back)
        recorder.insert_events(stored_events(topic="before"))
        assert database.terminate() >= 1
    with recorder.transaction():
        recorder.insert_events(stored_events(topic="after"))
    assert topics(recorder) == ["after"]


def test_terminations_at_any_moment_lose_and_duplicate_nothing(
    applications: Applications, database: Database, place: str, repeat: Callable[[int], range]
) -> None:
    recorder = applications.recorder(place=place)
    acknowledged: list[list[tuple[int, UUID]]] = [[] for _ in range(3)]
    unknown: list[UUID] = []
    is_over = threading.Event()

    def write_on(log: list[tuple[int, UUID]]) -> None:
        try:
            while not is_over.is_set():
                (event,) = stored_events()
                assert isinstance(event.originator_id, UUID)
                try:
                    (number,) = recorder.insert_events([event]) or ()
                except OperationalError:  # a connection may also be terminated while it is established
                    unknown.append(event.originator_id)
                else:
                    log.append((number, event.originator_id))
        finally:
            is_over.set()

    def terminate() -> None:
        try:
            for _ in repeat(15):
                everybody_writes = Growth(acknowledged, is_over)
                database.terminate("query NOT LIKE '%pg_stat_activity%'")
                wait_until(everybody_writes, "every thread continues to write")
        finally:
            is_over.set()

    calls: list[Callable[[], None]] = [partial(write_on, log) for log in acknowledged]
    run_together([terminate, *calls], 60)

    stored = {n.id: n.originator_id for n in recorder.select_notifications(None, 10**6)}
    expected = dict(pair for log in acknowledged for pair in log)
    assert len(expected) == sum(map(len, acknowledged))
    assert expected.items() <= stored.items()
    assert set(stored.values()) - set(expected.values()) <= set(unknown)
    assert len(set(stored.values())) == len(stored)


# -- the answer is lost --


@pytest.fixture
def relay(database: Database) -> Iterator[Relay]:
    """A relay in front of the database."""
    with Relay(database.url()) as relay:
        yield relay


@pytest.fixture
def behind_relay(relay: Relay, driver: str, place: str) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder whose connections use the relay."""
    with Applications(relay.url(driver)) as applications:
        yield applications.recorder(place=place)


@pytest.fixture
def neighbour(database: Database, behind_relay: SQLAlchemyProcessRecorder) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder of the same tables without the relay."""
    with Applications(database.url()) as applications:
        yield applications.elsewhere(behind_relay)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("point", ["before", "during", "after"])
@pytest.mark.parametrize(("what", "form"), [*FORMS, ("tracking", "statement")], indirect=["form"])
def test_write_whose_connection_breaks_is_stored_once(
    relay: Relay, behind_relay: SQLAlchemyProcessRecorder, neighbour: SQLAlchemyProcessRecorder, what: str, point: Point
) -> None:
    count, tracking = WRITES[what]
    events = stored_events(count)
    relay.break_at(point, "INSERT INTO")
    ids = write(behind_relay, events, tracking)
    assert relay.broken == 1
    assert_stored_once(neighbour, events, tracking, ids)
    # Position and versions are taken now, so neither can be written again.
    with pytest.raises(IntegrityError):
        write(behind_relay, events, tracking)


AGAIN_AND_AGAIN = 10**6


@pytest.mark.parametrize(("point", "times"), [("before", 4), ("during", 4), ("after", AGAIN_AND_AGAIN)])
@pytest.mark.parametrize("what", WRITES)
def test_write_whose_connection_breaks_repeatedly_is_stored_once(  # noqa: PLR0917 (fixtures)
    relay: Relay,
    behind_relay: SQLAlchemyProcessRecorder,
    neighbour: SQLAlchemyProcessRecorder,
    what: str,
    point: Point,
    times: int,
) -> None:
    """If every answer to a write is lost, reading determines the outcome."""
    count, tracking = WRITES[what]
    events = stored_events(count)
    relay.break_at(point, "INSERT INTO", times=times)
    ids = write(behind_relay, events, tracking)
    assert relay.broken >= 2
    assert_stored_once(neighbour, events, tracking, ids)


def test_recorded_write_is_found_after_another_process_moved_on(
    relay: Relay, behind_relay: SQLAlchemyProcessRecorder, neighbour: SQLAlchemyProcessRecorder
) -> None:
    """The answer was lost, and before the retry, another process has moved the position on."""
    events = stored_events(2)
    first = behind_relay.write_batch

    def and_another_process_moves_on(batch: Batch) -> list[int]:
        try:
            return first(batch)
        finally:
            if neighbour.max_tracking_id("upstream") == 1:
                neighbour.insert_tracking(Tracking("upstream", 2))

    behind_relay.write_batch = and_another_process_moves_on  # type: ignore[method-assign]
    relay.break_at("after", "INSERT INTO")
    assert behind_relay.insert_events(events, tracking=Tracking("upstream", 1)) == [1, 2]
    assert relay.broken == 1
    assert neighbour.max_tracking_id("upstream") == 2


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("form", ["rows"], indirect=True)
def test_batch_whose_connection_breaks_before_it_is_committed_is_stored_once(
    relay: Relay, behind_relay: SQLAlchemyProcessRecorder, neighbour: SQLAlchemyProcessRecorder
) -> None:
    count, tracking = WRITES["events and tracking"]
    events = stored_events(count)
    relay.break_at("before", "COMMIT")
    ids = write(behind_relay, events, tracking)
    assert relay.broken == 1
    assert_stored_once(neighbour, events, tracking, ids)


@pytest.mark.parametrize(("what", "form"), FORMS, indirect=["form"])
def test_write_that_commits_only_after_its_retry_is_stored_once(  # noqa: PLR0917 (fixtures)
    relay: Relay,
    behind_relay: SQLAlchemyProcessRecorder,
    neighbour: SQLAlchemyProcessRecorder,
    database: Database,
    form: str,
    what: str,
) -> None:
    count, tracking = WRITES[what]
    events = stored_events(count, topic="break here")
    with ThreadPoolExecutor(1) as threads, held(database, hold_writer_lock(neighbour)) as release:
        relay.break_at("during", "break here" if form == "statement" else "pg_advisory_xact_lock")
        writing = threads.submit(write, behind_relay, events, tracking)
        # The server process that has not noticed the loss of its client, and that of the second attempt. Reading back
        # now would find nothing, and be wrong a moment later.
        database.wait_for_blocked(2)
        assert not neighbour.select_notifications(None, 10)
        release()
        ids = writing.result(20)
    assert relay.broken == 1
    # A transaction of several statements ends with its client; a single statement commits.
    assert_stored_once(neighbour, events, tracking, ids)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("form", ["rows"], indirect=True)
def test_transaction_left_open_by_a_vanished_client_releases_the_writer_lock(
    relay: Relay, driver: str, place: str
) -> None:
    count, tracking = WRITES["events and tracking"]
    events = stored_events(count)
    with Applications(relay.url(driver), idle_in_transaction_session_timeout=0.2) as applications:
        recorder = applications.recorder(place=place)
        relay.break_at("silent", "INSERT INTO")
        ids = write(recorder, events, tracking)
        assert relay.broken == 1
        assert_stored_once(recorder, events, tracking, ids)


@pytest.mark.parametrize(("count", "change"), [(1, "state"), (3, "topic")])
def test_write_that_lost_its_connection_to_a_conflict_is_an_integrity_error(  # noqa: PLR0917 (fixtures)
    relay: Relay,
    behind_relay: SQLAlchemyProcessRecorder,
    neighbour: SQLAlchemyProcessRecorder,
    database: Database,
    count: int,
    change: str,
) -> None:
    originator_id = uuid4()
    ours = stored_events(count, originator_id, topic="break here")
    theirs = stored_events(1, originator_id, **{change: b"theirs" if change == "state" else "theirs"})  # type: ignore[arg-type] # (one of the two)
    with ThreadPoolExecutor(1) as threads, held(database, hold_writer_lock(neighbour)) as release:
        # The other append is first in the queue for the lock, so it is first in the table.
        winner = threads.submit(neighbour.insert_events, theirs)
        database.wait_for_blocked()
        with ThreadPoolExecutor(1) as more_threads:
            relay.break_at("during", "break here")
            loser = more_threads.submit(behind_relay.insert_events, ours)
            database.wait_for_blocked(3)
            release()
            assert winner.result(20) is not None
            with pytest.raises(IntegrityError) as raised:
                loser.result(20)
    assert raised.value.__cause__ is not None
    assert relay.broken == 1
    assert_stored_once(neighbour, theirs, None, list(winner.result() or ()))


@pytest.mark.parametrize("what", ["events and tracking", "tracking"])
def test_tracking_that_lost_its_connection_to_a_conflict_is_an_integrity_error(
    relay: Relay, behind_relay: SQLAlchemyProcessRecorder, neighbour: SQLAlchemyProcessRecorder, what: str
) -> None:
    count, tracking = WRITES[what]
    behind_relay.max_tracking_id("upstream")
    theirs, further = stored_events(2), Tracking("upstream", 5)
    ids = write(neighbour, theirs, further)
    relay.break_at("before", "INSERT INTO")
    with pytest.raises(IntegrityError):
        write(behind_relay, stored_events(count), tracking)
    assert relay.broken == 1
    assert_stored_once(neighbour, theirs, further, ids)


def test_same_notification_processed_by_another_with_other_events_is_an_integrity_error(
    relay: Relay, behind_relay: SQLAlchemyProcessRecorder, neighbour: SQLAlchemyProcessRecorder
) -> None:
    tracking = Tracking("upstream", 1)
    theirs = stored_events(2)
    ids = write(neighbour, theirs, tracking)
    relay.break_at("before", "INSERT INTO")
    with pytest.raises(IntegrityError):
        write(behind_relay, stored_events(2), tracking)
    assert_stored_once(neighbour, theirs, tracking, ids)


@pytest.mark.parametrize("point", ["before", "during", "after"])
def test_read_whose_connection_breaks_is_repeated(
    relay: Relay, behind_relay: SQLAlchemyProcessRecorder, point: Point
) -> None:
    behind_relay.insert_events(stored_events(2, SOURCE))
    relay.break_at(point, "SELECT originator_version")
    assert len(behind_relay.select_events(SOURCE)) == 2
    relay.break_at(point, "SELECT max(")
    assert behind_relay.max_notification_id() == 2
    assert relay.broken == 2


def test_without_a_second_attempt_the_write_fails_although_it_is_stored(
    relay: Relay,
    behind_relay: SQLAlchemyProcessRecorder,
    neighbour: SQLAlchemyProcessRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def give_up(_: SQLAlchemyProcessRecorder, batch: Batch) -> list[int]:
        raise ConnectionLostError(str(len(batch.events)))

    monkeypatch.setattr(SQLAlchemyProcessRecorder, "write_batch_again", give_up)
    relay.break_at("after", "INSERT INTO")
    with pytest.raises(ConnectionLostError):
        behind_relay.insert_events(stored_events(topic="stored"))
    assert topics(neighbour) == ["stored"]


def test_without_the_comparison_the_second_attempt_fails_although_it_is_stored(
    relay: Relay,
    behind_relay: SQLAlchemyProcessRecorder,
    neighbour: SQLAlchemyProcessRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SQLAlchemyProcessRecorder, "_ids_if_recorded", lambda *_: None)
    relay.break_at("after", "INSERT INTO")
    with pytest.raises(IntegrityError):
        behind_relay.insert_events(stored_events(topic="stored"))
    assert topics(neighbour) == ["stored"]


def test_transaction_with_an_unanswered_commit_is_an_operational_error(
    relay: Relay, behind_relay: SQLAlchemyProcessRecorder, neighbour: SQLAlchemyProcessRecorder
) -> None:
    # The user's other statements in it are unknown, so the transaction cannot be repeated here.
    with pytest.raises(OperationalError) as raised, behind_relay.transaction():  # noqa: PT012 (the end of the block raises)
        behind_relay.insert_events(stored_events(topic="first"))
        relay.break_at("after", "COMMIT")
    assert raised.value.__cause__ is not None
    with behind_relay.transaction():
        behind_relay.insert_events(stored_events(topic="second"))
    assert topics(neighbour) == ["first", "second"]
