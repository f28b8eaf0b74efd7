"""Ids become visible in order, the ids of a call are adjacent, and appending is one round trip."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest
from eventsourcing.persistence import Tracking

from eventsourcing_sqlalchemy.notifications.wakeups import Wakeups
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres
from tests.support.applications import Applications, stored_events
from tests.support.deadlines import run_together
from tests.support.ordering import (
    PollingReader,
    assert_in_order,
    write_in_process,
    write_in_rows,
    write_mixed_batches,
    write_without_lock,
)
from tests.support.wiretap import Wiretap

WRITERS = 12
FORMS = ("statement", "rows", "both")
# How often the variant without the lock may keep the order by chance.
ATTEMPTS = 30


def write_in_transactions(recorder: SQLAlchemyProcessRecorder, calls: int, seed: int) -> list[list[int]]:
    """Record like `write_mixed_batches`, with two calls per user transaction."""
    ids = []
    for number in range(0, calls, 2):
        with recorder.transaction():
            # The ids of both calls of a transaction are adjacent, too.
            ids.append(
                [
                    *write_mixed_batches(recorder, 1, seed * calls + number)[0],
                    *write_mixed_batches(recorder, 1, seed * calls + number + 1)[0],
                ]
            )
    return ids


WAYS: dict[str, Callable[[SQLAlchemyProcessRecorder, int, int], list[list[int]]]] = {
    "own connections": write_mixed_batches,
    "transactions": write_in_transactions,
}


def check_order(apps: Applications, form: str, way: str, calls: int, *, locks: bool = True) -> None:
    kinds = {"statement": [False], "rows": [True], "both": [False, True]}[form]
    # Group commit lets the threads of one recorder write in turn. Without the lock, each writer has its own recorder.
    recorders = [(apps.recorder(), in_rows) for in_rows in kinds * (1 if locks else WRITERS // len(kinds))]
    for recorder, in_rows in recorders:
        if in_rows:
            write_in_rows(recorder)
        if not locks:
            write_without_lock(recorder)
    chosen = [recorder for recorder, _ in recorders] * WRITERS
    with PollingReader(apps.elsewhere(chosen[0])) as reader:
        written = run_together(
            [partial(WAYS[way], recorder, calls, seed) for seed, recorder in enumerate(chosen[:WRITERS])]
        )
    assert_in_order([ids for calls_of_one in written for ids in calls_of_one], reader.ids)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
def test_twelve_writers_keep_the_order(postgres_url: str, form: str, way: str, repeat: Callable[[int], range]) -> None:
    with Applications(postgres_url, pool_size=WRITERS, lock_timeout=20) as apps:
        check_order(apps, form, way, len(repeat(20)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
def test_without_the_lock_twelve_writers_do_not_keep_the_order(
    postgres_server: Postgres, postgres_database: str, form: str, way: str
) -> None:
    """Proves that the test above can fail."""

    def try_often() -> None:
        for _ in range(ATTEMPTS):
            check_order(apps, form, way, 10, locks=False)

    with (
        Applications(postgres_server.url(postgres_database), pool_size=WRITERS) as apps,
        pytest.raises(AssertionError, match=r"late|interleaved"),
    ):
        try_often()


def test_three_processes_keep_the_order(
    postgres_server: Postgres, postgres_database: str, repeat: Callable[[int], range]
) -> None:
    """Each uses another driver, and one of them the other insert form."""
    drivers = {"psycopg": "statement", "pg8000": "rows", "psycopg2": "statement"}
    with (
        Applications(postgres_server.url(postgres_database)) as apps,
        ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as processes,
        PollingReader(apps.recorder()) as reader,
    ):
        futures = [
            processes.submit(
                write_in_process,
                postgres_server.url(postgres_database, driver),
                form,
                WRITERS // 3,
                len(repeat(20)),
                100 * number,
            )
            for number, (driver, form) in enumerate(drivers.items())
        ]
        written = [future.result() for future in futures]
    assert_in_order([ids for calls in written for ids in calls], reader.ids)


@pytest.mark.parametrize("way", WAYS)
def test_twelve_writers_keep_the_order_on_sqlite(sqlite_url: str, way: str, repeat: Callable[[int], range]) -> None:
    """On three engines, as in three processes; SQLite itself allows one writer at a time."""
    with Applications(sqlite_url, lock_timeout=20) as apps:
        recorder = apps.recorder()
        recorders = [recorder, *(apps.elsewhere(recorder, connect_args={"timeout": 20}) for _ in range(2))] * 4
        with PollingReader(apps.elsewhere(recorder)) as reader:
            written = run_together(
                [partial(WAYS[way], chosen, len(repeat(20)), seed) for seed, chosen in enumerate(recorders)]
            )
    assert_in_order([ids for calls in written for ids in calls], reader.ids)


@pytest.mark.parametrize(
    ("driver", "round_trips"),
    [
        ("psycopg2", 1),
        ("psycopg", 1),
        # The driver sends the statement, asks for its result types, and then sends the parameters.
        ("pg8000", 3),
    ],
)
def test_append_is_one_round_trip(
    postgres_server: Postgres,
    postgres_database: str,
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
    round_trips: int,
) -> None:
    """The other form, a transaction, takes more round trips, which shows that the count works."""
    # Other processes are notified later, on a separate thread and connection.
    monkeypatch.setattr(Wakeups, "committed", lambda *_: None)
    with Wiretap(postgres_server.url(postgres_database, driver)) as wiretap, Applications(wiretap.url) as apps:
        recorder, in_rows = apps.recorder(), apps.recorder()
        write_in_rows(in_rows)
        positions = iter(range(1, 1000))

        def append(recorder: SQLAlchemyProcessRecorder) -> None:
            recorder.insert_events(stored_events())
            recorder.insert_events(stored_events(100))
            recorder.insert_events(stored_events(2), tracking=Tracking("upstream", next(positions)))
            recorder.insert_tracking(Tracking("upstream", next(positions)))

        # A driver prepares a statement on its sixth run, and a recorder's first append is another statement.
        for _ in range(7):
            append(recorder)
        wiretap.reset()
        append(recorder)
        assert wiretap.round_trips == 4 * round_trips
        wiretap.reset()
        append(in_rows)
        assert wiretap.round_trips > 4 * round_trips
