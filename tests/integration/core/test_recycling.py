"""Choice and lifetime of pooled connections, whose server processes cache metadata of every table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.engines import pool
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import run_together, wait_until

DRIVERS = ["psycopg2", "psycopg", "pg8000"]
MAX_SERVED = 3

each_driver = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit connections to few applications."""
    monkeypatch.setattr(pool, "_MAX_USERS", MAX_SERVED)


def ask_pid(executor: Executor) -> int:
    return int(executor.fetch("SELECT pg_backend_pid()")[0][0])


def pid(datastore: SQLAlchemyDatastore) -> int:
    """Return the server process of an application's call."""
    return datastore.run(ask_pid)


def has_ended(database: Database, pid: int) -> bool:
    return database.scalar("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid", pid=pid) == 0


def datastores(apps: Applications, count: int, **settings: Any) -> list[SQLAlchemyDatastore]:
    """Return the datastores of several applications, before their first call."""
    return [apps.factory(f"App{number}", **settings).datastore for number in range(count)]


# -- very many applications --


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("pre_ping", ["no", "yes"])  # with it, calls use SQLAlchemy's own checkout
@each_driver
def test_connection_is_replaced_after_serving_many_applications(database: Database, driver: str, pre_ping: str) -> None:
    with Applications(database.url(driver), pool_pre_ping=pre_ping, pool_size=1, max_overflow=0) as apps:
        stores = datastores(apps, 2 * (MAX_SERVED + 1) + 1)
        for first in (0, MAX_SERVED + 1):
            old = pid(stores[first])
            # Repeated calls of the same applications do not count.
            assert {pid(store) for store in stores[first : first + MAX_SERVED] * 5} == {old}
            assert pid(stores[first + MAX_SERVED]) == old
            wait_until(partial(has_ended, database, old), "its server process ends")
            assert pid(stores[first + MAX_SERVED + 1]) != old
        assert stores[0].engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@each_driver
def test_connection_serves_many_applications(database: Database, driver: str) -> None:
    with Applications(database.url(driver), pool_size=1, max_overflow=0) as apps:
        assert len({pid(store) for store in datastores(apps, 50)}) == 1


@pytest.mark.usefixtures("few")
def test_calls_of_threads_succeed_while_connections_are_replaced(
    database: Database, place: str, repeat: Callable[[int], range]
) -> None:
    with Applications(database.url(), pool_size=2, max_overflow=1) as apps:
        recorders = [apps.recorder(f"App{number}", place) for number in range(8)]
        pids: set[int] = set()

        def write(number: int) -> None:
            for _ in repeat(30):
                recorders[number].insert_events(stored_events(topic=f"of {number}"))
                pids.add(pid(recorders[number].datastore))

        run_together([partial(write, number) for number in range(8)])
        assert len(pids) > 3
        for number, recorder in enumerate(recorders):
            assert topics(recorder) == [f"of {number}"] * len(repeat(30))


@pytest.mark.usefixtures("few")
@each_driver
def test_sessions_of_users_do_not_count(database: Database, driver: str) -> None:
    with Applications(database.url(driver), pool_size=1, max_overflow=0) as apps:
        stores = datastores(apps, 4 * MAX_SERVED)
        old = pid(stores[0])
        for store in stores:
            with store.transaction() as session:
                assert session.scalar(sa.text("SELECT pg_backend_pid()")) == old
            with store.get_connection() as connection:
                assert connection.scalar(sa.text("SELECT pg_backend_pid()")) == old
        assert pid(stores[0]) == old


@pytest.mark.usefixtures("few")
@each_driver
def test_failing_calls_leave_a_connection_that_serves(database: Database, place: str, driver: str) -> None:
    """Including the call after which it is closed."""
    with Applications(database.url(driver), pool_size=1, max_overflow=0, create_table="no") as apps:
        recorders = [apps.recorder(f"App{number}", f"{place}missing") for number in range(4 * MAX_SERVED)]
        for recorder in recorders:
            with pytest.raises(ProgrammingError, match="CREATE_TABLE"):
                recorder.insert_events(stored_events())
            assert pid(recorder.datastore) > 0


@pytest.fixture(params=["file", "memory"])
def sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that the applications share."""
    if request.param == "file":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return "sqlite:///file:recycling?mode=memory&cache=shared&uri=true"


@pytest.mark.usefixtures("few")
def test_sqlite_connection_is_never_closed(sqlite: str) -> None:
    """It has no server process, and closing the only connection of an in-memory database would lose the data."""
    with Applications(sqlite) as apps:
        recorder = apps.recorder("App", "place_")
        recorder.insert_events(stored_events(topic="kept"))
        closed: list[object] = []
        sa.event.listen(recorder.datastore.engine, "close", lambda *connection: closed.append(connection))
        for store in datastores(apps, 4 * MAX_SERVED):
            store.run(lambda executor: executor.fetch("SELECT 1"))
        assert topics(recorder) == ["kept"]
        assert closed == []


their_engine: Callable[[], sa.Engine]


@pytest.fixture
def theirs(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """A user's engine with one connection."""
    engine = sa.create_engine(database.url(), pool_size=1, max_overflow=0)
    monkeypatch.setitem(globals(), "their_engine", lambda: engine)
    yield engine
    engine.dispose()


@pytest.mark.usefixtures("few")
def test_users_engines_connection_is_never_closed(database: Database, theirs: sa.Engine) -> None:
    with Applications(database.url()) as apps:
        stores = datastores(apps, 4 * MAX_SERVED, url="", engine_topic=f"{__name__}:their_engine")
        assert stores[0].engine is theirs
        assert len({pid(store) for store in stores}) == 1


# -- the choice among several --


@each_driver
def test_call_gets_the_most_recently_used_connection(database: Database, driver: str) -> None:
    """One server process has all metadata cached, while three in turn would each have to load it."""
    with Applications(database.url(driver), pool_size=3, max_overflow=0) as apps:
        store = apps.factory("App").datastore
        all_at_once = threading.Barrier(3, timeout=20)

        def ask_together(executor: Executor) -> int:
            answer = ask_pid(executor)
            all_at_once.wait()
            return answer

        assert len(set(run_together([lambda: store.run(ask_together)] * 3))) == 3
        last = pid(store)
        assert {pid(store) for _ in range(20)} == {last}
        for _ in range(5):
            with store.transaction() as session:
                assert session.scalar(sa.text("SELECT pg_backend_pid()")) == last
