"""Applications that start together query a real catalog once, and each gets the same answer as alone."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError, Tracking

from eventsourcing_sqlalchemy.engines import shape_cache
from eventsourcing_sqlalchemy.engines.executors import CursorExecutor
from eventsourcing_sqlalchemy.engines.shape_cache import ShapeCache
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.integration.core.test_bad_tables import SHAPES, make
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import run_together
from tests.support.forked import forks, in_child
from tests.support.wiretap import Wiretap

each_driver = pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
who_prepares = pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extend the time limits for slow machines; the unit tests cover the limits."""
    monkeypatch.setattr(shape_cache, "_MOMENT", 600.0)
    monkeypatch.setattr(shape_cache, "_FRESH", 600.0)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The number of catalog queries about some tables, and about all."""
    noted: list[str] = []
    fetch = CursorExecutor.fetch

    def noting(self: Any, statement: str, parameters: Sequence[Any] = (), **options: Any) -> Any:
        if "pg_class" in statement:
            noted.append("some" if parameters else "all")
        elif "table_info" in statement:
            noted.append("some")
        return fetch(self, statement, parameters, **options)

    monkeypatch.setattr(CursorExecutor, "fetch", noting)
    return noted


def made(url: str, place: str, count: int) -> None:
    """Create the tables of applications, as an earlier process did."""
    with Applications(url) as apps:
        for number in range(count):
            recorder(apps, place, number)


def recorder(apps: Applications, place: str, number: int, **settings: object) -> SQLAlchemyProcessRecorder:
    return apps.recorder(f"Shop{number}", place, **settings)


def warmed_up(apps: Applications, url: str, place: str) -> None:
    """Construct enough applications for all tables to be read ahead."""
    made(url, f"{place}warm", 3)
    for number in range(3):
        recorder(apps, f"{place}warm", number)


def serves(recorder: SQLAlchemyProcessRecorder, topic: str = "new") -> None:
    position = (recorder.max_tracking_id("upstream") or 0) + 1
    recorder.insert_events(stored_events(topic=topic), tracking=Tracking("upstream", position))
    assert topics(recorder)[-1] == topic


@each_driver
def test_catalog_is_read_once_and_later_applications_need_no_query(
    database: Database, place: str, driver: str, looks: list[str]
) -> None:
    url = database.url(driver)
    made(url, place, 10)
    looks.clear()
    with Wiretap(url) as wiretap, Applications(wiretap.url) as apps:
        constructed = [recorder(apps, place, number) for number in range(3)]
        assert looks == ["some", "some", "all"]
        wiretap.reset()
        constructed += [recorder(apps, place, number) for number in range(3, 10)]
        assert wiretap.round_trips == 0
        assert looks == ["some", "some", "all"]
        for app in constructed:
            serves(app)


def test_names_are_found_unchanged(database: Database, place: str, looks: list[str]) -> None:
    names = ["50%", "a%sb", "it's", 'say "hi"', "back\\slash", "naïve 表 😀", "Capitals", "a.b", "a,b"]

    def construct(apps: Applications) -> list[SQLAlchemyProcessRecorder]:
        return [apps.recorder("Shop", place + name, table_prefix=name) for name in names]

    with Applications(database.url()) as apps:
        construct(apps)
    looks.clear()
    with Applications(database.url()) as apps:
        warmed_up(apps, database.url(), place)
        looks.clear()
        for app in construct(apps):
            serves(app)
        assert looks == []


@each_driver
def test_dropped_table_is_created_again(database: Database, place: str, driver: str, looks: list[str]) -> None:
    made(database.url(driver), place, 5)
    with Applications(database.url(driver)) as apps:
        for number in range(5):
            serves(recorder(apps, place, number), "old")
        with database.engine.connect() as connection:
            for number in range(5):
                connection.exec_driver_sql(f'DROP TABLE "{place}".shop{number}_events, "{place}".shop{number}_tracking')
        looks.clear()
        for number in range(5):
            again = recorder(apps, place, number)
            serves(again)
            assert topics(again) == ["new"]
        assert "all" not in looks


def test_answer_used_twice_would_leave_it_dropped(
    database: Database, place: str, monkeypatch: pytest.MonkeyPatch, looks: list[str]
) -> None:
    """Wrong variant: what was read ahead stays valid for all callers."""

    def take(self: Any, tables: Sequence[Any]) -> Any:
        shapes = self._shapes
        return {table: shapes[table] for table in tables} if set(tables) <= set(shapes) else None

    monkeypatch.setattr(ShapeCache, "take", take)
    with pytest.raises(ProgrammingError, match="CREATE_TABLE"):
        test_dropped_table_is_created_again(database, place, "psycopg2", looks)


@pytest.mark.parametrize("missing", ["both tables", "one table"])
@each_driver
def test_missing_tables_are_created(
    database: Database, place: str, driver: str, missing: str, looks: list[str]
) -> None:
    url = database.url(driver)
    if missing == "one table":
        made(url, place, 6)
        with database.engine.connect() as connection:
            for number in range(6):
                connection.exec_driver_sql(f'DROP TABLE "{place}".shop{number}_tracking')
    with Applications(url) as apps:
        warmed_up(apps, url, place)
        looks.clear()
        for number in range(6):
            serves(recorder(apps, place, number))
        assert "all" not in looks


@pytest.mark.parametrize("how", ["read ahead", "third"])
@pytest.mark.parametrize("shape", SHAPES)
def test_wrong_shape_is_refused_with_the_same_message(
    database: Database, place: str, shape: str, how: str, looks: list[str]
) -> None:
    make(database.engine, place, SHAPES[shape][0])
    url = database.url()

    def refusal(apps: Applications) -> str:
        with pytest.raises(ProgrammingError, match="exists but cannot be used") as raised:
            apps.recorder("Shop", place)
        return str(raised.value)

    with Applications(url) as apps:
        alone = refusal(apps)
    made(url, f"{place}other", 3)
    with Applications(url) as apps:
        looks.clear()
        for number in range(3 if how == "read ahead" else 2):
            recorder(apps, f"{place}other", number)
        assert refusal(apps) == alone
        assert looks.count("all") == 1
        has_all = "tracking" not in shape
        # If one of the tables is missing, the database is asked about both.
        assert has_all or looks[-1] == "some"
        # A retry gets the same error.
        assert refusal(apps) == alone


def test_wrong_shape_of_all_tables_is_found_ahead(database: Database, place: str, looks: list[str]) -> None:
    made(database.url(), place, 4)
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f'ALTER TABLE "{place}".shop3_events DROP COLUMN topic')
    with Applications(database.url()) as apps:
        for number in range(3):
            recorder(apps, place, number)
        looks.clear()
        with pytest.raises(ProgrammingError, match="no column topic"):
            recorder(apps, place, 3)
        assert looks == []


@each_driver
def test_threads_that_start_applications_read_once(
    database: Database, place: str, driver: str, looks: list[str]
) -> None:
    """Half of the tables exist; no answer is wrong about either half."""
    url = database.url(driver)
    made(url, place, 16)
    looks.clear()
    with Applications(url) as apps:

        def start(first: int) -> None:
            for number in range(first, 32, 8):
                serves(recorder(apps, place, number))

        run_together([partial(start, first) for first in range(8)])
        assert looks.count("all") == 1
        for number in range(32):
            assert topics(recorder(apps, place, number)) == ["new"]
        assert looks.count("all") == 1


@forks
def test_child_forked_during_a_question_starts_applications(database: Database, place: str) -> None:
    """The thread that held the lock does not exist in the child."""
    with Applications(database.url()) as apps:
        warmed_up(apps, database.url(), place)
        parent = recorder(apps, place, 0)
        holds, may_let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with parent.datastore.shared.shape_cache._lock:  # noqa: SLF001 (held briefly at each question)
                holds.set()
                may_let_go.wait(20)

        def start() -> None:
            holds.wait(20)
            try:
                in_child(lambda: serves(recorder(apps, place, 1)), 5)
            finally:
                may_let_go.set()

        run_together([hold, start])


# -- without reading ahead --


def test_sqlite_is_queried_each_time(sqlite_url: str, looks: list[str]) -> None:
    made(sqlite_url, "place_", 8)
    looks.clear()
    with Applications(sqlite_url) as apps:
        for number in range(8):
            serves(recorder(apps, "place_", number))
    assert looks == ["some"] * 8


their_engine: Callable[[], sa.Engine]


@pytest.fixture
def theirs(database: Database, driver: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Settings of an application on a user's engine with one connection."""
    engine = sa.create_engine(database.url(driver), pool_size=1, max_overflow=0)
    monkeypatch.setitem(globals(), "their_engine", lambda: engine)
    yield {"url": "", "engine_topic": f"{__name__}:their_engine"}
    engine.dispose()


@each_driver
def test_users_engine_is_queried_each_time(
    database: Database, place: str, driver: str, theirs: dict[str, str], looks: list[str]
) -> None:
    made(database.url(driver), place, 8)
    looks.clear()
    with Applications(database.url(driver)) as apps:
        for number in range(8):
            serves(recorder(apps, place, number, **theirs))
    assert looks == ["some"] * 8


# -- catalog queries are not prepared: a generic plan would read the whole catalog --


def prepared(recorder: SQLAlchemyProcessRecorder) -> list[str]:
    """Return the catalog queries that are prepared on the pooled connection."""
    statements = recorder.datastore.run(lambda executor: executor.fetch("SELECT statement FROM pg_prepared_statements"))
    return [statement for (statement,) in statements if re.search("pg_(class|index|namespace)", statement)]


@pytest.mark.parametrize("whose", ["ours", "the user's"])
@who_prepares
def test_query_of_some_tables_is_never_prepared(  # noqa: PLR0917 (fixtures)
    database: Database, place: str, driver: str, whose: str, theirs: dict[str, str], looks: list[str]
) -> None:
    settings: dict[str, Any] = theirs if whose == "the user's" else {"pool_size": 1, "max_overflow": 0}
    with Applications(database.url(driver)) as apps:
        for _ in range(10):
            app = recorder(apps, place, 0, **settings)
        assert looks.count("some") >= 10
        assert prepared(app) == []


@who_prepares
def test_query_of_all_tables_is_never_prepared(
    database: Database, place: str, driver: str, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(database.url(driver), place, 30)
    monkeypatch.setattr(shape_cache, "_FRESH", -1.0)
    looks.clear()
    with Applications(database.url(driver), pool_size=1, max_overflow=0) as apps:
        for number in range(30):
            app = recorder(apps, place, number)
        assert looks.count("all") >= 10
        assert prepared(app) == []
