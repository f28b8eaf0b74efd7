"""An exception in the middle of a call or of a transaction: a user's error, or Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from eventsourcing.persistence import Tracking
from sqlalchemy import text

from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.faults.conftest import DRIVERS
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import wait_until


@pytest.fixture(params=[*DRIVERS, "sqlite"])
def recorder(request: pytest.FixtureRequest, place: str) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder on a pool of one connection, so that leftovers affect the next call."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        database: Database = request.getfixturevalue("database")
        url = database.url(request.param)
    with Applications(url, pool_size=1, max_overflow=0, pool_timeout=0.2, lock_timeout=0.5) as applications:
        yield applications.recorder("Shop", place)


def assert_nothing_left(recorder: SQLAlchemyProcessRecorder) -> None:
    """Expect that nothing is recorded, and that everything can still be recorded."""
    assert topics(recorder) == []
    assert recorder.max_tracking_id("upstream") is None
    assert recorder.insert_events(stored_events(2, topic="next"), tracking=Tracking("upstream", 1)) is not None
    with recorder.transaction():
        recorder.insert_events(stored_events(topic="last"))
    assert topics(recorder) == ["next", "next", "last"]


class ErrorOfTheUser(Exception):  # noqa: N818 (raised by the user)
    """An exception class that is unknown to the package."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, ErrorOfTheUser])
def test_error_in_a_transaction_leaves_nothing(recorder: SQLAlchemyProcessRecorder, error: type[BaseException]) -> None:
    with pytest.raises(error), recorder.transaction() as session:  # noqa: PT012 (the block rolls back)
        recorder.insert_events(stored_events(2), tracking=Tracking("upstream", 1))
        session.execute(text("SELECT 1"))
        raise error
    assert_nothing_left(recorder)


def test_error_in_a_thread_leaves_nothing(recorder: SQLAlchemyProcessRecorder) -> None:
    raised: list[type[BaseException]] = []

    def run() -> None:
        try:
            with recorder.transaction():
                recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1))
                raise ErrorOfTheUser  # noqa: TRY301 (as a user's code does)
        except ErrorOfTheUser as error:
            raised.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert raised == [ErrorOfTheUser]
    assert_nothing_left(recorder)


@pytest.mark.filterwarnings("ignore:Exception in thread:pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_dies_of_an_error_leaves_nothing(recorder: SQLAlchemyProcessRecorder) -> None:
    def run() -> None:
        with recorder.transaction():
            recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1))
            raise ErrorOfTheUser

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert_nothing_left(recorder)


BUSY = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND backend_type = 'client backend' AND state <> 'idle'"
)


def nothing() -> None:
    pass


@contextmanager
def keyboard_interrupt_when(condition: Callable[[], bool], then: Callable[[], None]) -> Iterator[None]:
    """Interrupt the main thread, as Ctrl-C does, once a condition holds; call a function soon after."""
    assert threading.current_thread() is threading.main_thread()

    def interrupt() -> None:
        wait_until(condition, "the condition for the interrupt")
        os.kill(os.getpid(), signal.SIGINT)
        # Some drivers notice only when the server answers.
        then()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join(20)
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("in_transaction", [False, True])
def test_keyboard_interrupt_while_an_append_waits_for_the_writer_lock(
    database: Database, driver: str, place: str, count: int, in_transaction: bool
) -> None:
    engine = database.engine.execution_options(isolation_level="READ COMMITTED")
    with Applications(database.url(driver), pool_size=1, max_overflow=0, pool_timeout=0.2) as applications:
        recorder = applications.recorder("Shop", place)
        events = stored_events(count, topic="interrupted")
        with engine.connect() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({recorder.wakeup_key})"))
            # psycopg2 notices only when the server has answered.
            then = connection.rollback if driver == "psycopg2" else nothing
            with (  # noqa: PT012 (the block rolls back)
                pytest.raises(KeyboardInterrupt),
                keyboard_interrupt_when(lambda: database.blocked() == 1, then),
            ):
                if in_transaction:
                    with recorder.transaction():
                        recorder.insert_events(events, tracking=Tracking("upstream", 1))
                else:
                    recorder.insert_events(events, tracking=Tracking("upstream", 1))
            # The pool's only connection has no pending answer.
            assert recorder.max_tracking_id("unknown") is None
        wait_until(lambda: database.scalar(BUSY) == 0, "no transaction and no statement is left")
        # An interrupted append may have been recorded, but only as a whole.
        recorded = topics(recorder)
        assert recorded in ([], ["interrupted"] * count)
        assert recorder.max_tracking_id("upstream") == (1 if recorded else None)
        assert not (recorded and in_transaction)
        assert recorder.insert_events(stored_events(topic="next")) is not None
        assert topics(recorder)[-1] == "next"
