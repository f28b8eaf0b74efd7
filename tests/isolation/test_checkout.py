"""A connection that a call checks out returns to the pool exactly once, and clean, whatever happens."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, PersistenceError
from sqlalchemy.pool import Pool

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.engines import engine as shared_engine
from eventsourcing_sqlalchemy.engines import pool
from tenancy.testing.postgresql import Postgres
from tests.support.activity import Activity
from tests.support.deadlines import run_together

POOL_SIZE, MAX_OVERFLOW = 2, 2
THREADS = 16


class ErrorOfTheUser(Exception):  # noqa: N818 (raised by the user)
    """An exception class that is unknown to the package."""


@pytest.fixture(params=["psycopg2", "psycopg"])
def url(request: pytest.FixtureRequest, postgres_server: Postgres, postgres_database: str) -> str:
    return postgres_server.url(postgres_database, request.param)


@pytest.fixture
def open_datastore(url: str) -> Iterator[Callable[..., SQLAlchemyDatastore]]:
    """Open datastores with separate engines."""
    with ExitStack() as resources:
        yield lambda **options: resources.enter_context(
            closing(SQLAlchemyDatastore(url=url, **(options or {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5})))
        )


@pytest.fixture
def datastore(open_datastore: Callable[..., SQLAlchemyDatastore]) -> SQLAlchemyDatastore:
    """A datastore with one connection."""
    return open_datastore()


def pid(executor: Executor) -> int:
    return int(executor.fetch("SELECT pg_backend_pid()")[0][0])


def checked_out(datastore: SQLAlchemyDatastore) -> int:
    pool: Any = datastore.engine.pool
    return int(pool.checkedout())


def assert_usable(datastore: SQLAlchemyDatastore) -> None:
    """Expect the only connection in the pool, and in no transaction."""
    assert checked_out(datastore) == 0
    assert datastore.run(lambda executor: executor.fetch("SELECT 1"))[0][0] == 1
    assert checked_out(datastore) == 0


def fail(error: BaseException, executor: Executor) -> None:
    executor.fetch("SELECT 1")
    raise error


# -- back in the pool --


def test_connection_comes_back_after_success_and_errors(datastore: SQLAlchemyDatastore) -> None:
    connection = datastore.run(pid)
    assert_usable(datastore)
    for error in (ErrorOfTheUser(), IntegrityError(), KeyboardInterrupt(), SystemExit(), GeneratorExit()):
        with pytest.raises((type(error), PersistenceError)):
            datastore.run(partial(fail, error))
        assert_usable(datastore)
    before = datastore.run(pid)
    for statement in ("SELECT 1 / 0", "SELECT missing", "no statement"):
        with pytest.raises(PersistenceError):
            datastore.run(lambda executor, statement=statement: executor.fetch(statement))  # type: ignore[misc] # (defaults)
        assert_usable(datastore)
    # An interrupt requires a new connection, an error of the server does not.
    assert datastore.run(pid) == before != connection


@pytest.mark.parametrize("error", [KeyboardInterrupt, ErrorOfTheUser])
@pytest.mark.parametrize("place", ["connecting", "checking", "checking again", "returning", "rolling back"])
def test_connection_comes_back_when_taking_or_returning_it_fails(
    datastore: SQLAlchemyDatastore, monkeypatch: pytest.MonkeyPatch, place: str, error: type[BaseException]
) -> None:
    shared = datastore.shared
    names = {"connecting": "connected", "returning": "in_transaction", "rolling back": "rollback"}
    failing = names.get(place, "is_stale")
    calls: list[object] = []

    def interrupt(*_: object, **__: object) -> Any:
        calls.append(place)
        if place == "checking again" and len(calls) == 1:
            raise ErrorOfTheUser  # the connection is treated as dead
        raise error

    for is_new in (False, True):
        if is_new or place == "connecting":
            datastore.engine.dispose()
        else:
            assert_usable(datastore)
        calls.clear()
        with monkeypatch.context() as patch, suppress(BaseException):
            patch.setattr(shared.dialect, failing, interrupt)
            datastore.run(lambda executor: executor.fetch("BEGIN"))
        assert calls
        assert_usable(datastore)


def test_error_of_the_call_is_raised_when_its_connection_dies_too(
    datastore: SQLAlchemyDatastore, activity: Activity
) -> None:
    """The error leaves a transaction open, which cannot be rolled back on the dead connection."""

    def conflict(executor: Executor) -> None:
        executor.fetch("BEGIN")
        activity.terminate()
        raise IntegrityError

    with pytest.raises(IntegrityError):
        datastore.run(conflict)
    assert_usable(datastore)


@contextmanager
def interrupted_at(number: int) -> Iterator[list[str]]:
    """Raise KeyboardInterrupt where a signal can arrive: at the n-th entry of a function that our modules call or
    contain. Yields its name.
    """
    files = {pool.__file__, shared_engine.__file__}
    entered: list[str] = []

    def trace(frame: FrameType, what: str, _: object) -> None:
        caller = frame.f_back
        is_finalizer = frame.f_code.co_name == "__del__"  # an exception there is reported and dropped
        if what != "call" or caller is None or is_finalizer or frame.f_code.co_filename not in files:
            return
        entered.append(frame.f_code.co_qualname)
        if len(entered) == number:
            raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield entered
    finally:
        sys.settrace(before)


def test_interrupt_at_any_step_of_a_call_leaves_the_connection_in_the_pool(datastore: SQLAlchemyDatastore) -> None:
    """At every point where Python handles signals. Such an interrupt may be caught, like a task's time limit."""
    assert_usable(datastore)
    for number in range(1, 100):
        # After its handler, the exception no longer keeps frames, and with them the connection, alive.
        with suppress(KeyboardInterrupt), interrupted_at(number) as entered:
            datastore.run(lambda executor: executor.fetch("SELECT 1"))
        assert checked_out(datastore) == 0, entered[-1]
        assert_usable(datastore)
        if len(entered) < number:
            break
    assert number > 5


def test_connection_returned_to_a_pool_that_was_just_disposed_is_closed(
    datastore: SQLAlchemyDatastore, activity: Activity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last application of an engine is closed by one thread while another one ends a call."""
    assert_usable(datastore)
    pool_class = type(datastore.engine.pool)
    give_back = pool_class._do_return_conn  # noqa: SLF001 (the step to interfere with)

    def dispose_and_give_back(self: Pool, record: Any) -> None:
        monkeypatch.undo()
        datastore.close()
        give_back(self, record)

    monkeypatch.setattr(pool_class, "_do_return_conn", dispose_and_give_back)
    used = datastore.engine.pool  # Held, so that its collection closes nothing.
    datastore.run(lambda executor: executor.fetch("SELECT 1"))
    activity.wait_until_none()
    assert used is not datastore.engine.pool


def test_pool_counts_stay_right_under_threads_and_failures(
    open_datastore: Callable[..., SQLAlchemyDatastore], repeat: Callable[[int], range]
) -> None:
    datastore = open_datastore(pool_size=POOL_SIZE, max_overflow=MAX_OVERFLOW)
    counts = [0]
    opened: set[Any] = set()
    lock = threading.Lock()

    def note(change: Callable[[Any], None], connection: Any, _: Any) -> None:
        with lock:
            change(connection)
            counts.append(len(opened))

    sa.event.listen(datastore.engine, "connect", partial(note, opened.add))
    sa.event.listen(datastore.engine, "close", partial(note, opened.discard))

    def call(executor: Executor, chance: random.Random) -> None:
        executor.fetch("SELECT 1")
        executor.fetch(chance.choice(["SELECT 1", "SELECT 1 / 0", "BEGIN", "SELECT pg_sleep(0.001)"]))
        executor.fetch("SELECT 1")
        error = chance.choice([None, None, ErrorOfTheUser(), KeyboardInterrupt(), IntegrityError(), OSError()])
        if error is not None:
            raise error
        if chance.random() < 0.05:
            executor.fetch("SELECT pg_terminate_backend(pg_backend_pid())")

    def work(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 (not for security)
        for _ in repeat(25):
            with suppress(PersistenceError, ErrorOfTheUser, KeyboardInterrupt):
                datastore.run(lambda executor: call(executor, chance))
            if chance.random() < 0.05:
                with suppress(PersistenceError), datastore.transaction() as session:
                    session.execute(sa.text("SELECT 1"))

    run_together([partial(work, seed) for seed in range(THREADS)], 120)
    assert 0 < max(counts) <= POOL_SIZE + MAX_OVERFLOW
    assert checked_out(datastore) == 0
    # All connections of the pool can be checked out at the same time.
    connections = [datastore.engine.connect() for _ in range(POOL_SIZE + MAX_OVERFLOW)]
    assert checked_out(datastore) == POOL_SIZE + MAX_OVERFLOW
    for connection in connections:
        connection.close()
    assert checked_out(datastore) == 0


@pytest.mark.parametrize("error", [None, ErrorOfTheUser, IntegrityError])
def test_transaction_left_open_is_rolled_back_before_the_next_call(
    datastore: SQLAlchemyDatastore, error: type[Exception] | None
) -> None:
    datastore.run(lambda executor: executor.fetch("CREATE TABLE t (number int)"))

    def leave_open(executor: Executor) -> None:
        executor.fetch("BEGIN")
        executor.fetch("INSERT INTO t VALUES (1)")
        if error is not None:
            raise error

    with suppress(PersistenceError, ErrorOfTheUser):
        datastore.run(leave_open)
    datastore.run(lambda executor: executor.fetch("INSERT INTO t VALUES (2)"))
    with closing(SQLAlchemyDatastore(url=datastore.engine.url, echo=False)) as outside:
        assert [row[0] for row in outside.run(lambda executor: executor.fetch("SELECT number FROM t"))] == [2]


# -- event listeners --


def listen_to_engine(engine: sa.Engine, name: str, listener: Callable[..., None]) -> Callable[[], None]:
    sa.event.listen(engine, name, listener)
    return lambda: sa.event.remove(engine, name, listener)


def listen_to_pool(engine: sa.Engine, name: str, listener: Callable[..., None]) -> Callable[[], None]:
    pool = engine.pool
    sa.event.listen(pool, name, listener)
    return lambda: sa.event.remove(pool, name, listener)


def listen_to_all_pools(_: sa.Engine, name: str, listener: Callable[..., None]) -> Callable[[], None]:
    sa.event.listen(Pool, name, listener)
    return lambda: sa.event.remove(Pool, name, listener)


@pytest.mark.parametrize("listen", [listen_to_engine, listen_to_pool, listen_to_all_pools])
@pytest.mark.parametrize("name", ["checkout", "checkin", "reset"])
@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_listener_is_called_for_recorders(
    datastore: SQLAlchemyDatastore, listen: Callable[..., Callable[[], None]], name: str, is_late: bool
) -> None:
    if is_late:
        datastore.run(pid)
    on_commit: list[str] = []
    stop = listen(datastore.engine, name, lambda *_: on_commit.append(name))
    try:
        for number in range(1, 4):
            datastore.run(pid)
            assert len(on_commit) == number
        datastore.engine.dispose()
        datastore.run(pid)
        assert len(on_commit) == 4
    finally:
        stop()
    datastore.run(pid)
    assert len(on_commit) == 4
    assert_usable(datastore)


@pytest.mark.parametrize("name", ["checkout", "checkin", "reset"])
def test_listener_of_all_pools_is_called_for_later_engines(
    open_datastore: Callable[..., SQLAlchemyDatastore], name: str
) -> None:
    on_commit: list[str] = []
    listener = lambda *_: on_commit.append(name)  # noqa: E731 (removed later)
    sa.event.listen(Pool, name, listener)
    try:
        datastore = open_datastore()
        datastore.run(pid)
        assert len(on_commit) == 1
        datastore.run(pid)
        assert len(on_commit) == 2
    finally:
        sa.event.remove(Pool, name, listener)
