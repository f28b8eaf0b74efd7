"""Pools that share one connection: its users take turns, or the pool is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import ClassVar

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import InternalError, NotSupportedError, OperationalError, ProgrammingError
from eventsourcing.utils import Environment
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import AssertionPool, Pool, QueuePool, SingletonThreadPool, StaticPool

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.engines.static_pool import StaticPoolLock
from eventsourcing_sqlalchemy.errors import is_retryable
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder, SQLAlchemyProcessRecorder
from tests.support.applications import stored_events
from tests.support.engine_count import engines_in_use

URL = "sqlite://"


class Users:
    """The user's engine; the topic names a function of this module, which returns it."""

    pool_class: ClassVar[type[Pool]]


def users_engine() -> sa.Engine:
    return sa.create_engine(URL, poolclass=Users.pool_class, connect_args={"check_same_thread": False})


def by_url() -> SQLAlchemyDatastore:
    return SQLAlchemyDatastore(url=URL, poolclass=Users.pool_class)


def by_engine() -> SQLAlchemyDatastore:
    return SQLAlchemyDatastore(engine=users_engine())


def by_engine_topic() -> SQLAlchemyDatastore:
    return SQLAlchemyFactory(Environment("App", {"SQLALCHEMY_ENGINE_TOPIC": f"{__name__}:users_engine"})).datastore


def by_session_maker() -> SQLAlchemyDatastore:
    return SQLAlchemyDatastore(session_maker=sessionmaker(bind=users_engine()))


WAYS = [by_url, by_engine, by_engine_topic, by_session_maker]


@pytest.mark.parametrize("construct", WAYS)
@pytest.mark.parametrize("pool_class", [SingletonThreadPool, AssertionPool])
def test_pool_that_shares_a_connection_is_refused(
    construct: Callable[[], SQLAlchemyDatastore], pool_class: type[Pool]
) -> None:
    Users.pool_class = pool_class
    with pytest.raises(NotSupportedError, match=rf"{pool_class.__name__}.*poolclass=QueuePool"):
        construct()
    assert engines_in_use() == []


def test_pool_that_the_error_recommends_works() -> None:
    engine = sa.create_engine(URL, poolclass=QueuePool, pool_size=1, max_overflow=0)
    datastore = SQLAlchemyDatastore(engine=engine)
    recorder = SQLAlchemyApplicationRecorder(datastore)
    recorder.create_table()
    with recorder.transaction():
        recorder.insert_events(stored_events(2))
    assert recorder.max_notification_id() == 2
    datastore.close()
    engine.dispose()


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    """An in-memory database as SQLAlchemy and FastAPI recommend for tests."""
    Users.pool_class = StaticPool
    engine = users_engine()
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE mine (a integer)")
    yield engine
    engine.dispose()


@contextmanager
def recorder_on(datastore: SQLAlchemyDatastore) -> Iterator[SQLAlchemyProcessRecorder]:
    recorder = SQLAlchemyProcessRecorder(datastore)
    recorder.create_table()
    yield recorder
    datastore.close()


def on(engine: sa.Engine, lock_timeout: float = 5) -> AbstractContextManager[SQLAlchemyProcessRecorder]:
    return recorder_on(SQLAlchemyDatastore(engine=engine, settings=EngineSettings(lock_timeout=lock_timeout)))


def count_of_mine(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM mine").scalar_one())


@pytest.mark.parametrize("construct", WAYS)
def test_threads_take_turns_on_a_static_pool(construct: Callable[[], SQLAlchemyDatastore]) -> None:
    Users.pool_class = StaticPool
    with recorder_on(construct()) as recorder, ThreadPoolExecutor(8) as threads:

        def work(number: int) -> Sequence[int]:
            if number % 3 == 0:
                with recorder.transaction():
                    recorder.insert_events(stored_events())
                    return recorder.insert_events(stored_events(2)) or []
            if number % 3 == 1:
                with suppress(ZeroDivisionError), recorder.transaction():
                    recorder.insert_events(stored_events(5))
                    raise ZeroDivisionError
                return []
            return recorder.insert_events(stored_events(number % 5)) or []

        written = [ids for ids in threads.map(work, range(60)) if ids]
        ids = [notification.id for notification in recorder.select_notifications(start=None, limit=1000)]
    assert len(ids) == 60 + sum(number % 5 for number in range(60) if number % 3 == 2)
    assert {id_ for some in written for id_ in some} <= set(ids)
    assert ids == sorted(set(ids))


def test_sessions_of_the_users_engine_share_the_connection(engine: sa.Engine) -> None:
    """FastAPI's recipe: test and application share one session, which has read, and other threads use it."""
    with on(engine) as recorder, Session(engine) as session, ThreadPoolExecutor(1) as other:
        assert session.scalar(sa.text("SELECT count(*) FROM mine")) == 0
        other.submit(recorder.insert_events, stored_events(3)).result()
        with recorder.transaction() as ours:
            ours.execute(sa.text("INSERT INTO mine VALUES (1)"))
            recorder.insert_events(stored_events())
        session.execute(sa.text("INSERT INTO mine VALUES (2)"))
        recorder.insert_events(stored_events(), session=session)
        session.commit()
        assert recorder.max_notification_id() == 5
        session.rollback()
    assert count_of_mine(engine) == 2


def test_users_sessions_and_calls_in_threads_lose_nothing(engine: sa.Engine, repeat: Callable[[int], range]) -> None:
    with on(engine, lock_timeout=60) as recorder, ThreadPoolExecutor(6) as threads:

        def record() -> None:
            for _ in repeat(25):
                recorder.insert_events(stored_events())
                with recorder.transaction() as session:
                    session.execute(sa.text("INSERT INTO mine VALUES (1)"))
                    recorder.insert_events(stored_events(2))

        def disturb() -> None:
            for _ in repeat(25):
                with Session(engine) as session:
                    session.execute(sa.text("SELECT count(*) FROM mine"))
                    session.rollback()

        for future in [*(threads.submit(record) for _ in range(3)), *(threads.submit(disturb) for _ in range(3))]:
            future.result()
        assert recorder.max_notification_id() == 3 * len(repeat(25)) * 3
    assert count_of_mine(engine) == 3 * len(repeat(25))


def test_call_waits_for_a_transaction_of_the_users_session(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    is_waiting, look = threading.Event(), StaticPoolLock._is_in_transaction  # noqa: SLF001 (not visible otherwise)

    def look_and_tell(lock: StaticPoolLock) -> bool:
        found = look(lock)
        if found:
            is_waiting.set()
        return found

    monkeypatch.setattr(StaticPoolLock, "_is_in_transaction", look_and_tell)
    with on(engine, lock_timeout=60) as recorder, ThreadPoolExecutor(1) as other:
        with Session(engine) as session:
            session.execute(sa.text("INSERT INTO mine VALUES (1)"))
            recorded = other.submit(recorder.insert_events, stored_events())
            assert is_waiting.wait(timeout=30)
            session.rollback()
        assert recorded.result() == [1]
    assert count_of_mine(engine) == 0


def test_a_transaction_that_does_not_end_is_an_error_with_a_remedy(engine: sa.Engine) -> None:
    with on(engine, lock_timeout=0.05) as recorder, Session(engine) as session:
        session.execute(sa.text("INSERT INTO mine VALUES (1)"))
        with pytest.raises(OperationalError, match=r"End that transaction first.*session=") as error:
            recorder.insert_events(stored_events())
        assert is_retryable(error.value)
        session.commit()
    assert count_of_mine(engine) == 1


def test_session_inside_the_packages_transaction_is_refused_and_nothing_is_half_committed(engine: sa.Engine) -> None:
    """It cannot wait for the end of the transaction that it is inside."""
    with on(engine, lock_timeout=0.05) as recorder:

        def read_inside() -> None:
            with recorder.transaction():
                recorder.insert_events(stored_events())
                with pytest.raises(OperationalError, match="StaticPool"):
                    count_of_mine(engine)

        with pytest.raises(InternalError, match="has ended this transaction"):
            read_inside()
        assert recorder.max_notification_id() is None


def test_turn_ends_with_a_transaction_that_another_thread_ends(engine: sa.Engine) -> None:
    with on(engine) as recorder, ThreadPoolExecutor(1) as other:
        transaction = recorder.transaction()
        session = transaction.__enter__()
        recorder.insert_events(stored_events(), session=session)
        with pytest.raises(ProgrammingError, match="ended in another"):
            other.submit(transaction.__exit__, None, None, None).result()
        assert recorder.max_notification_id() is None
        recorder.insert_events(stored_events())


def test_engine_is_left_unchanged(engine: sa.Engine) -> None:
    before = len(engine.pool.dispatch.reset)
    for _ in range(2):
        with on(engine) as recorder:
            recorder.insert_events(stored_events())
    assert len(engine.pool.dispatch.reset) == before
    assert not engine.dispatch.commit
