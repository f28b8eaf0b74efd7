"""The read-ahead catalog: outdated answers never reach a caller that already had a newer one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsourcing_sqlalchemy import provisioning
from eventsourcing_sqlalchemy.engines import shape_cache
from eventsourcing_sqlalchemy.engines.shape_cache import ShapeCache
from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.tables import TableShape, TableSpec
from tests.support.deadlines import run_together

FRESH = 5.0


def name(number: int) -> TableName:
    return TableName("schema", f"app{number}_tracking")


class Fleet:
    """Applications in one process, with tables in a dictionary.

    `queries` holds the database queries. The clock only moves when a test moves it.
    """

    def __init__(self, *, can_read_all: bool = True) -> None:
        self.now = 1000.0
        self.existing: set[TableName] = set()
        self.queries: list[str] = []
        self.catalog = ShapeCache(can_read_all=can_read_all)
        self.meanwhile: Callable[[], None] = lambda: None
        self._datastore: Any = SimpleNamespace(
            scoped_session=None,
            shared=SimpleNamespace(shape_cache=self.catalog),
            dialect=self,
            run=lambda work, _="": work(None),
        )

    def describe(self, _: Any, tables: Sequence[TableName]) -> dict[TableName, TableShape]:
        self.queries.append("some")
        return {table: shape() for table in tables if table in self.existing}

    def describe_all(self, _: Any) -> dict[TableName, TableShape]:
        self.queries.append("all")
        found = {table: shape() for table in self.existing}
        self.meanwhile()
        return found

    def misses(self, *numbers: int) -> set[int]:
        """Return the numbers of the tables that an application is told to create."""
        missing = provisioning.find_missing(
            self._datastore, [TableSpec("tracking", name(number)) for number in numbers]
        )
        return {number for number in numbers if any(spec.name == name(number) for spec in missing)}

    def make(self, *numbers: int) -> None:
        self.existing |= {name(number) for number in numbers}

    def drop(self, *numbers: int) -> None:
        self.existing -= {name(number) for number in numbers}

    def read_ahead(self, *numbers: int) -> None:
        """Ask about existing tables until all are read ahead."""
        self.make(*numbers)
        self.queries.clear()
        for number in numbers:
            assert self.misses(number) == set()
        assert self.queries == ["some", "some", "all"]
        self.queries.clear()


def shape() -> TableShape:
    columns = {"application_name": "text", "notification_id": "int8"}
    return TableShape(columns, unique=[frozenset({"application_name"})])


@contextmanager
def clock_of(fleet: Fleet) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape_cache, "time", SimpleNamespace(monotonic=lambda: fleet.now))
        yield


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    with clock_of(fleet):
        yield fleet


def test_third_question_within_a_second_reads_ahead(fleet: Fleet) -> None:
    fleet.make(*range(20))
    for number in range(20):
        assert fleet.misses(number) == set()
    assert fleet.queries == ["some", "some", "all"]


def test_questions_further_apart_read_nothing_ahead(fleet: Fleet) -> None:
    fleet.make(*range(20))
    for number in range(20):
        fleet.misses(number)
        fleet.now += 0.6
    assert fleet.queries == ["some"] * 20


def test_each_answer_is_used_once(fleet: Fleet) -> None:
    fleet.make(4)
    fleet.read_ahead(1, 2, 3)
    assert fleet.misses(4) == set()
    assert fleet.queries == []
    fleet.drop(4)
    assert fleet.misses(4) == {4}
    assert fleet.queries == ["some"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_table_asked_about_before_the_read_is_queried_again(fleet: Fleet, number: int) -> None:
    fleet.read_ahead(1, 2, 3)
    fleet.drop(number)
    assert fleet.misses(number) == {number}


def test_tables_are_all_queried_if_one_was_missing(fleet: Fleet) -> None:
    fleet.make(4)
    fleet.read_ahead(1, 2, 3)
    fleet.drop(4)  # after the catalog was read
    assert fleet.misses(4, 5) == {4, 5}
    fleet.make(4)
    assert fleet.misses(4, 5) == {5}


def test_answer_is_valid_for_five_seconds(fleet: Fleet) -> None:
    fleet.make(4, 5, 6, 7, 8)
    fleet.read_ahead(1, 2, 3)
    fleet.now += FRESH
    assert fleet.misses(4) == set()
    assert fleet.queries == []
    fleet.drop(5)
    fleet.now += 0.01
    assert fleet.misses(5) == {5}
    # While questions continue, the catalog is read again.
    assert fleet.misses(6) | fleet.misses(7) | fleet.misses(8) == set()
    assert fleet.queries == ["some", "some", "all"]


def test_nothing_is_read_ahead_twice_within_five_seconds(fleet: Fleet) -> None:
    """If every application has missing tables, reading ahead would be wasted."""
    fleet.read_ahead(1, 2, 3)
    assert [fleet.misses(number) for number in range(4, 9)] == [{number} for number in range(4, 9)]
    assert fleet.queries == ["some"] * 5


def test_missing_table_that_triggered_the_read_is_queried_again(fleet: Fleet) -> None:
    """The third caller got its answer and created the table, so a later read-ahead must not answer it."""
    fleet.make(1, 2)
    assert [fleet.misses(number) for number in (1, 2, 3)] == [set(), set(), {3}]
    fleet.make(3)
    fleet.now += FRESH + 1
    fleet.read_ahead(4, 5, 6)
    fleet.drop(3)
    assert fleet.misses(3) == {3}


def test_table_asked_about_during_the_read_is_queried_again(fleet: Fleet) -> None:
    fleet.make(4)
    fleet.meanwhile = lambda: assert_none(fleet.misses(4))
    fleet.make(1, 2, 3)
    assert [fleet.misses(number) for number in (1, 2, 3)] == [set()] * 3
    assert fleet.queries == ["some", "some", "all", "some"]
    fleet.drop(4)
    assert fleet.misses(4) == {4}


def test_table_asked_about_right_after_the_read_is_queried_again(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread finds nothing read ahead; before it queries the database, another thread reads the catalog."""
    fleet.make(4)
    take = ShapeCache.take

    def take_and_be_overtaken(self: ShapeCache, tables: Sequence[TableName]) -> Any:
        found = take(self, tables)
        if list(tables) == [name(4)]:
            monkeypatch.setattr(ShapeCache, "take", take)
            fleet.read_ahead(1, 2, 3)
        return found

    monkeypatch.setattr(ShapeCache, "take", take_and_be_overtaken)
    assert fleet.misses(4) == set()
    fleet.drop(4)
    assert fleet.misses(4) == {4}


def assert_none(missing: set[int]) -> None:
    assert missing == set()


def test_database_without_a_bulk_read_is_queried_each_time() -> None:
    fleet = Fleet(can_read_all=False)
    fleet.make(*range(20))
    for number in range(20):
        assert fleet.misses(number) == set()
    assert fleet.queries == ["some"] * 20


def test_process_with_too_many_questions_to_remember_reads_nothing_ahead(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape_cache, "_MAX_ASKED", 10)
    fleet.make(*range(40))
    for number in range(40):
        fleet.misses(number)
        fleet.now += 0.6
    fleet.queries.clear()
    fleet.make(*range(100, 120))
    for number in range(100, 120):
        assert fleet.misses(number) == set()
    assert fleet.queries == ["some"] * 20


def test_concurrent_threads_read_once_and_use_each_answer_once(repeat: Callable[[int], range]) -> None:
    for _ in repeat(10):
        fleet = Fleet()
        numbers = range(160)
        fleet.make(*numbers)

        def ask(first: int, fleet: Fleet = fleet, numbers: range = numbers) -> set[int]:
            return {missing for number in numbers[first::8] for missing in fleet.misses(number)}

        with clock_of(fleet):
            assert run_together([partial(ask, first) for first in range(8)]) == [set()] * 8
            assert fleet.queries.count("all") == 1
            fleet.drop(*numbers)
            assert [fleet.misses(number) for number in numbers] == [{number} for number in numbers]


few = st.integers(0, 7)
steps = st.one_of(
    st.tuples(st.just("ask"), st.lists(few, min_size=1, max_size=3, unique=True)),
    st.tuples(st.just("make"), st.lists(few, min_size=1, max_size=6)),
    st.tuples(st.just("drop"), st.lists(few, min_size=1, max_size=6)),
    st.tuples(st.just("wait"), st.sampled_from([0.3, 2.0, 6.0])),
)


@given(st.lists(steps, max_size=40))
def test_repeated_questions_get_current_answers_and_first_ones_recent_answers(
    history: list[tuple[str, Any]],
) -> None:
    fleet = Fleet()
    asked: set[int] = set()
    changed_at: dict[int, float] = {}
    with clock_of(fleet):
        for what, argument in history:
            if what == "wait":
                fleet.now += argument
            elif what == "ask":
                missing = fleet.misses(*argument)
                truth = {number for number in argument if name(number) not in fleet.existing}
                for number in missing ^ truth:
                    # Only a first question may get an outdated answer, and only about a new table.
                    assert number not in asked
                    assert fleet.now - changed_at[number] <= FRESH
                asked.update(argument)
            else:
                (fleet.make if what == "make" else fleet.drop)(*argument)
                changed_at.update(dict.fromkeys(argument, fleet.now))
