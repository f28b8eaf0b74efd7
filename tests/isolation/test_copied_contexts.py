"""Recording in a copied context while a transaction is open is refused: the events would commit separately.

Frameworks copy contexts for tasks and for pooled threads. A copy has no transaction, nor has a context whose code was
meant for another copy's transaction.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Final

import anyio.to_thread
import pytest
from eventsourcing.persistence import ProgrammingError, Tracking
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import run_together


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def recorder(request: pytest.FixtureRequest) -> Iterator[SQLAlchemyProcessRecorder]:
    with Applications(request.getfixturevalue(request.param)) as apps:
        yield apps.recorder()


@pytest.fixture
def on_postgres(postgres_url: str) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder on a database that allows two concurrent writers."""
    with Applications(postgres_url) as apps:
        yield apps.recorder()


def open_transaction(recorder: SQLAlchemyProcessRecorder) -> None:
    with recorder.transaction():
        recorder.insert_events(stored_events())


RECORDING: Final[list[Callable[[SQLAlchemyProcessRecorder], object]]] = [
    lambda recorder: recorder.insert_events(stored_events()),
    lambda recorder: recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1)),
    lambda recorder: recorder.insert_tracking(Tracking("upstream", 1)),
    open_transaction,
]


# -- copies of the context that opened the transaction --


async def in_task(work: Callable[[], object]) -> None:
    async def run() -> None:
        work()

    await asyncio.create_task(run())


async def in_copy(work: Callable[[], object]) -> None:
    contextvars.copy_context().run(work)


async def in_callback(work: Callable[[], object]) -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except ProgrammingError as error:
            done.set_exception(error)

    asyncio.get_running_loop().call_soon(run)
    await done


COPIES: Final[list[Callable[[Callable[[], object]], Awaitable[object]]]] = [
    in_task,
    in_copy,
    in_callback,
    asyncio.to_thread,
    anyio.to_thread.run_sync,
]


@pytest.mark.parametrize("commit", [True, False])
def test_copy_of_a_context_with_an_open_transaction_records_nothing(
    recorder: SQLAlchemyProcessRecorder, commit: bool
) -> None:
    async def main() -> None:
        with recorder.transaction(commit=commit) as session:
            for copy in COPIES:
                for record in RECORDING:
                    with pytest.raises(ProgrammingError, match=r"recorder.detached\(\)"):
                        await copy(lambda record=record: record(recorder))  # type: ignore[misc]
                assert await asyncio.to_thread(topics, recorder) == []  # reading is not refused
            if commit:
                await asyncio.to_thread(lambda: recorder.insert_events(stored_events(), session=session))
        assert len(topics(recorder)) == commit

    asyncio.run(main())


def test_copy_records_once_the_transaction_has_ended(recorder: SQLAlchemyProcessRecorder) -> None:
    with recorder.transaction():
        copy = contextvars.copy_context()
    copy.run(recorder.insert_events, stored_events())
    assert len(topics(recorder)) == 1


# -- detached from the transaction --


def test_detached_calls_commit_separately(on_postgres: SQLAlchemyProcessRecorder) -> None:
    recorder = on_postgres

    def record_apart(topic: str) -> None:
        with recorder.detached():
            recorder.insert_events(stored_events(topic=topic))
            with recorder.transaction():
                recorder.insert_events(stored_events(topic=topic))

    async def record_later(may_record: asyncio.Event) -> None:
        await may_record.wait()
        recorder.insert_events(stored_events(topic="task"))

    async def main() -> None:
        may_record = asyncio.Event()
        with pytest.raises(ZeroDivisionError), recorder.transaction() as session:  # noqa: PT012 (the block rolls back)
            await asyncio.to_thread(record_apart, "copy")
            record_apart("here")
            with recorder.detached():
                task = asyncio.create_task(record_later(may_record))  # keeps a copy of this context
                may_record.set()
                await task
            assert recorder.datastore.current_session() is session
            recorder.insert_events(stored_events(topic="rolled back"))
            raise ZeroDivisionError

    asyncio.run(main())
    assert topics(recorder) == ["copy", "copy", "here", "here", "task"]


def test_transaction_that_ends_while_detached_does_not_come_back(recorder: SQLAlchemyProcessRecorder) -> None:
    generator = hold(recorder)
    next(generator)
    with recorder.detached():
        generator.close()
    assert recorder.datastore.current_session() is None
    recorder.insert_events(stored_events())
    with recorder.detached():
        recorder.insert_events(stored_events())
    assert len(topics(recorder)) == 2


# -- transactions that are left open in a context that ends --


def hold(recorder: SQLAlchemyProcessRecorder) -> Generator[Session]:
    """Open a transaction, and end it when the generator is closed."""
    with recorder.transaction() as session:
        yield session


class UnitOfWork:
    """A context manager written as a class."""

    def __init__(self, recorder: SQLAlchemyProcessRecorder) -> None:
        self._stack = ExitStack()
        self._recorder = recorder

    def __enter__(self) -> Session:
        return self._stack.enter_context(self._recorder.transaction())

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


@contextmanager
def nested(recorder: SQLAlchemyProcessRecorder) -> Iterator[Session]:
    with UnitOfWork(recorder) as session:
        yield session


Opening = Callable[[SQLAlchemyProcessRecorder], AbstractContextManager[Session]]
OPENING: Final[list[Opening]] = [contextmanager(hold), UnitOfWork, nested, lambda recorder: recorder.transaction()]


async def in_pool(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(work).result()


async def in_thread(work: Callable[[], object]) -> None:
    errors: list[Any] = []
    hook, threading.excepthook = threading.excepthook, lambda args: errors.append(args.exc_value)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        threading.excepthook = hook
    for error in errors:
        raise error


CARRIERS: Final[list[Callable[[Callable[[], object]], Awaitable[object]]]] = [
    asyncio.to_thread,
    anyio.to_thread.run_sync,
    in_pool,
    in_thread,
]


@pytest.mark.parametrize("opening", OPENING)
def test_transaction_that_would_be_left_open_in_a_thread_is_refused(
    recorder: SQLAlchemyProcessRecorder, opening: Opening
) -> None:
    """A web framework opens sync dependencies this way."""

    def use() -> None:
        with opening(recorder):
            recorder.insert_events(stored_events())

    async def main() -> None:
        for carrier in CARRIERS:
            with pytest.raises(ProgrammingError, match="Open it in the function that records"):
                await carrier(opening(recorder).__enter__)
        for carrier in CARRIERS:
            await carrier(use)

    asyncio.run(main())
    assert len(topics(recorder)) == len(CARRIERS)


def test_transaction_left_in_another_context_is_rolled_back(recorder: SQLAlchemyProcessRecorder) -> None:
    generator = hold(recorder)
    next(generator)
    recorder.insert_events(stored_events())
    with pytest.raises(ProgrammingError, match="rolled back"):
        run_together([lambda: next(generator, None)])
    assert topics(recorder) == []
    recorder.insert_events(stored_events())
