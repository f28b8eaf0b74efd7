"""A transaction belongs only to its application, and to the context that opened it.

Each way to run code (`CARRIERS`) runs an open transaction of one application, and inside it each way runs calls of
another one.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import OperationalError, Tracking
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy import transactions
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder, SQLAlchemyProcessRecorder
from eventsourcing_sqlalchemy.transactions import OpenTransaction
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import run_together

Work = Callable[[], Awaitable[None]]


@dataclass(kw_only=True)
class Scene:
    """Three applications with the same name in different places, and outside views of two of them."""

    mine: SQLAlchemyProcessRecorder
    other: SQLAlchemyProcessRecorder
    third: SQLAlchemyProcessRecorder
    mine_outside: SQLAlchemyProcessRecorder
    other_outside: SQLAlchemyProcessRecorder
    allows_two_writers: bool
    """Whether a second transaction can write while one is open; SQLite has one writer at a time."""


@contextmanager
def open_scene(database: str, request: pytest.FixtureRequest) -> Iterator[Scene]:
    url = request.getfixturevalue(database)
    is_sqlite = url.startswith("sqlite")
    # On SQLite in separate files, so that all can write concurrently.
    urls = [f"{url}-{place}" if is_sqlite else url for place in ("mine", "other", "third")]
    with Applications(urls[0]) as first, Applications(urls[1]) as second, Applications(urls[2]) as third:
        mine, other = first.recorder(place="mine"), second.recorder(place="other")
        yield Scene(
            mine=mine,
            other=other,
            third=third.recorder(place="third"),
            mine_outside=first.elsewhere(mine),
            other_outside=second.elsewhere(other),
            allows_two_writers=not is_sqlite,
        )


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with open_scene(request.param, request) as scene:
        yield scene


# -- the ways to run code --


async def directly(_: Scene, work: Work) -> None:
    await work()


async def in_thread(_: Scene, work: Work) -> None:
    # A thread starts with an empty context. The loop's own pool waits for it.
    result: list[BaseException | None] = []

    def run() -> None:
        try:
            asyncio.run(as_coroutine(work))
        except BaseException as error:  # noqa: BLE001 (raised below)
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await asyncio.to_thread(thread.join)
    for error in result:
        assert error is not None
        raise error


async def in_task(_: Scene, work: Work) -> None:
    await asyncio.create_task(as_coroutine(work))


async def in_to_thread(_: Scene, work: Work) -> None:
    await asyncio.to_thread(lambda: asyncio.run(as_coroutine(work)))


async def in_copied_context(_: Scene, work: Work) -> None:
    await asyncio.create_task(as_coroutine(work), context=contextvars.copy_context())


async def in_nested_transaction(scene: Scene, work: Work) -> None:
    with scene.third.transaction():
        await work()


async def in_generator(scene: Scene, work: Work) -> None:
    generator = hold(scene.third)
    next(generator)
    await work()
    generator.close()


async def in_subscription(scene: Scene, work: Work) -> None:
    scene.third.insert_events(stored_events())
    with scene.third.subscribe() as subscription:
        next(subscription)
        await work()


async def as_coroutine(work: Work) -> None:
    await work()


def hold(recorder: SQLAlchemyProcessRecorder) -> Generator[Session]:
    """Open a transaction, and end it when the generator is closed."""
    with recorder.transaction() as session:
        yield session


Carrier = Callable[[Scene, Work], Awaitable[None]]
SAME_CONTEXT: list[Carrier] = [directly, in_nested_transaction, in_generator, in_subscription]
OTHER_CONTEXT: list[Carrier] = [in_thread, in_task, in_to_thread, in_copied_context]
CARRIERS = [*SAME_CONTEXT, *OTHER_CONTEXT]


async def check_pair(scene: Scene, carrier: Carrier, other_carrier: Carrier) -> None:
    """Open my transaction in one carrier, make all calls in the other one, and roll back."""
    mine, other = scene.mine, scene.other
    pair = f"{carrier.__name__} {other_carrier.__name__} {uuid4()}"
    is_same_context = other_carrier in SAME_CONTEXT

    async def calls_of_others(session: Session) -> None:
        assert (mine.datastore.current_session() is session) == is_same_context
        assert other.datastore.current_session() is None
        other.insert_events(stored_events(topic=pair), tracking=Tracking(pair, 7))
        assert topics(scene.other_outside)[-1] == pair
        with other.transaction() as other_session:
            assert other_session is not session
            assert other.datastore.current_session() is other_session
            other.insert_events(stored_events(topic=f"{pair} again"))
        assert topics(scene.other_outside)[-1] == f"{pair} again"
        if is_same_context:
            mine.insert_events(stored_events(topic=pair))
            assert topics(mine)[-1:] == [pair]
            assert pair not in topics(scene.mine_outside)
        else:
            with mine.transaction(commit=False) as own_session:
                assert own_session is not session
            if scene.allows_two_writers:
                with nullcontext() if other_carrier is in_thread else mine.detached():
                    mine.insert_events(stored_events(topic=pair))
                assert topics(scene.mine_outside)[-1:] == [pair]

    async def body() -> None:
        with mine.transaction() as session:
            await other_carrier(scene, lambda: calls_of_others(session))
            mine.insert_events(stored_events(topic="rolled back"), tracking=Tracking(pair, 7))
            assert mine.datastore.current_session() is session
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await carrier(scene, body)
    assert mine.datastore.current_session() is None
    assert mine.max_tracking_id(pair) is None
    assert "rolled back" not in topics(mine)
    assert (pair in topics(mine)) == (not is_same_context and scene.allows_two_writers)
    assert topics(other)[-2:] == [pair, f"{pair} again"]
    assert other.max_tracking_id(pair) == 7


@pytest.mark.parametrize("other_carrier", CARRIERS)
@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_pair(database: str, other_carrier: Carrier, request: pytest.FixtureRequest) -> None:
    with open_scene(database, request) as scene:
        for carrier in CARRIERS:
            asyncio.run(check_pair(scene, carrier, other_carrier))


def any_transaction(_: object) -> OpenTransaction | None:
    # Not an ended one, which an earlier test may have left in the main thread's context.
    found = transactions._transactions.get().values()  # noqa: SLF001 (wrong variants use internals)
    return next((transaction for transaction in found if transaction.datastore is not None), None)


@pytest.mark.parametrize("other_carrier", CARRIERS)
def test_variants_fail(other_carrier: Carrier, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same context against one transaction for all applications, otherwise against one that contexts inherit.

    A thread inherits nothing, so the variant there is process-wide.
    """
    with open_scene("postgres_url", request) as scene:
        asyncio.run(check_pair(scene, directly, other_carrier))
        if other_carrier in SAME_CONTEXT:
            monkeypatch.setattr("eventsourcing_sqlalchemy.datastore.current_transaction", any_transaction)
        elif other_carrier is in_thread:
            of_the_process = OneForAll(transactions._transactions.get())  # noqa: SLF001 (as above)
            monkeypatch.setattr(transactions, "_transactions", of_the_process)
            monkeypatch.setattr(OpenTransaction, "is_owned", lambda _: True)
        else:
            monkeypatch.setattr(OpenTransaction, "is_owned", lambda _: True)
        with pytest.raises(AssertionError):
            asyncio.run(check_pair(scene, directly, other_carrier))


class OneForAll:
    """A process-wide variable with the interface of a context variable."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def get(self) -> Any:
        """Return the value."""
        return self.value

    def set(self, value: Any) -> None:
        """Set the value."""
        self.value = value


# -- concurrent transactions --


def test_every_thread_has_its_own_transaction(scene: Scene) -> None:
    meeting = threading.Barrier(4)

    def read_together() -> Session:
        with scene.mine.transaction(commit=False) as session:
            meeting.wait(10)
            assert scene.mine.datastore.current_session() is session
            meeting.wait(10)
            return session

    assert len({id(session) for session in run_together([read_together] * 4)}) == 4


def test_every_task_has_its_own_transaction(scene: Scene) -> None:
    async def read(meeting: asyncio.Barrier) -> Session:
        with scene.mine.transaction(commit=False) as session:
            await meeting.wait()
            assert scene.mine.datastore.current_session() is session
            await meeting.wait()
            return session

    async def read_together() -> list[Session]:
        meeting = asyncio.Barrier(4)
        return await asyncio.gather(*(read(meeting) for _ in range(4)))

    assert len({id(session) for session in asyncio.run(read_together())}) == 4


def test_thread_does_not_see_uncommitted_events(scene: Scene) -> None:
    with scene.mine.transaction():
        scene.mine.insert_events(stored_events(topic="open"))
        assert topics(scene.mine) == ["open"]
        assert run_together([lambda: topics(scene.mine)]) == [[]]
    assert run_together([lambda: topics(scene.mine)]) == [["open"]]


def test_nested_transaction_of_the_same_application_joins(scene: Scene) -> None:
    with pytest.raises(ZeroDivisionError), scene.mine.transaction() as session:  # noqa: PT012 (the block rolls back)
        with scene.mine.transaction() as inner:
            assert inner is session
            scene.mine.insert_events(stored_events())
        assert scene.mine.datastore.current_session() is session
        raise ZeroDivisionError
    assert topics(scene.mine) == []


# -- transactions that have ended --


def test_context_copied_in_an_ended_transaction_has_none(scene: Scene) -> None:
    with scene.mine.transaction():
        scene.mine.insert_events(stored_events())
        copy = contextvars.copy_context()
    assert copy.run(scene.mine.datastore.current_session) is None
    copy.run(scene.mine.insert_events, stored_events())
    assert len(topics(scene.mine_outside)) == 2


def test_task_that_outlives_its_transaction_writes_separately(scene: Scene) -> None:
    async def write_later(ended: asyncio.Event) -> None:
        await ended.wait()
        assert scene.mine.datastore.current_session() is None
        scene.mine.insert_events(stored_events(topic="later"))

    async def leave_a_task_behind() -> None:
        ended = asyncio.Event()
        with pytest.raises(ZeroDivisionError), scene.mine.transaction():  # noqa: PT012 (the block rolls back)
            task = asyncio.create_task(write_later(ended))
            await asyncio.sleep(0)
            raise ZeroDivisionError
        ended.set()
        await task

    asyncio.run(leave_a_task_behind())
    assert topics(scene.mine_outside) == ["later"]


def test_context_copied_in_an_open_transaction_has_none(scene: Scene) -> None:
    """Not even in the same thread: a framework may pass the copy to another one."""
    with scene.mine.transaction() as session:
        scene.mine.insert_events(stored_events())
        copy = contextvars.copy_context()
        assert copy.run(scene.mine.datastore.current_session) is None
        assert copy.run(topics, scene.mine) == []
        assert scene.mine.datastore.current_session() is session


# -- generators --


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)])
def test_generators_closed_in_any_order_end_their_own_transaction(scene: Scene, order: tuple[int, ...]) -> None:
    """Seen to fail against a variable that is reset to its value from before the transaction."""
    recorders = [scene.mine, scene.other, scene.third]
    generators = [hold(recorder) for recorder in recorders]
    sessions = [next(generator) for generator in generators]
    assert len({id(session) for session in sessions}) == 3
    for recorder in recorders:
        recorder.insert_events(stored_events())
    open_ones = {0, 1, 2}
    for number in order:
        if number == 1:
            next(generators[number], None)  # This one is exhausted, and commits; the others are closed, and roll back.
        else:
            generators[number].close()
        open_ones.remove(number)
        for index, recorder in enumerate(recorders):
            assert recorder.datastore.current_session() is (sessions[index] if index in open_ones else None)
    assert [len(topics(recorder)) for recorder in recorders] == [0, 1, 0]


def test_abandoned_generator_rolls_back(scene: Scene) -> None:
    generator = hold(scene.mine)
    next(generator)
    scene.mine.insert_events(stored_events())
    del generator
    gc.collect()
    assert scene.mine.datastore.current_session() is None
    assert topics(scene.mine) == []
    scene.mine.insert_events(stored_events())


def test_generator_closed_by_another_thread_leaves_nothing_behind(scene: Scene) -> None:
    generator = hold(scene.mine)
    next(generator)
    scene.mine.insert_events(stored_events())
    run_together([generator.close])
    assert scene.mine.datastore.current_session() is None
    scene.mine.insert_events(stored_events(topic="afterwards"))
    assert topics(scene.mine_outside) == ["afterwards"]


# -- caches --


class Named(Aggregate):
    """An aggregate that contains its owner."""

    def __init__(self, whose: str) -> None:
        self.whose = whose

    @classmethod
    def with_id(cls, whose: str, identity: Any) -> Named:
        """Return a new aggregate with an id that another application also uses."""
        return cls._create(cls.Created, id=identity, whose=whose)


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_aggregate_cache_is_separate_for_each_application(database: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(database)
    identity = uuid4()
    place = "SQLALCHEMY_TABLE_PREFIX" if url.startswith("sqlite") else "SQLALCHEMY_SCHEMA"
    env = {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": url, "AGGREGATE_CACHE_MAXSIZE": "10"}
    apps: list[Application[Any]] = [Application(env={**env, place: whose}) for whose in ("mine", "other")]
    try:
        apps[0].save(Named.with_id("mine", identity))
        with pytest.raises(Exception, match=str(identity)):
            apps[1].repository.get(identity)
        recorder = apps[0].recorder
        assert isinstance(recorder, SQLAlchemyApplicationRecorder)
        # Inside my transaction, too, if the database allows a concurrent writer.
        with nullcontext() if url.startswith("sqlite") else recorder.transaction():
            apps[1].save(Named.with_id("other", identity))
        for _ in range(2):
            assert [app.repository.get(identity).whose for app in apps] == ["mine", "other"]
    finally:
        for app in apps:
            app.close()


# -- one file --


def test_write_of_another_application_on_the_same_sqlite_file_is_a_clear_error(sqlite_url: str) -> None:
    """SQLite has one writer at a time: the other application can neither join nor write, and must not hang."""
    with Applications(sqlite_url, lock_timeout=0.1) as apps:
        mine, other = apps.recorder(place="mine"), apps.recorder(place="other")
        with mine.transaction():
            mine.insert_events(stored_events())
            with pytest.raises(OperationalError, match="inside another's transaction"):
                other.insert_events(stored_events())
            assert topics(other) == []
        other.insert_events(stored_events())
        assert [len(topics(recorder)) for recorder in (mine, other)] == [1, 1]
