"""Behind PgBouncer in transaction mode: three server processes serve all clients, transaction by transaction."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from eventsourcing.persistence import NotSupportedError, StoredEvent, Tracking
from sqlalchemy import Engine, create_engine, text

from eventsourcing_sqlalchemy.notifications import wakeups
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres
from tests.support.applications import Applications, stored_events
from tests.support.deadlines import run_together
from tests.support.pgbouncer import PgBouncer

NAMES = [f"App{number}" for number in range(6)]
DRIVERS = ["psycopg2", "psycopg"]

# The parameters that PgBouncer itself sets on a server connection.
SET_BY_POOLER = {"application_name", "client_encoding", "DateStyle", "standard_conforming_strings", "TimeZone"}


@dataclass
class Outcome:
    """The outcome: errors, and misplaced rows."""

    errors: Counter[str] = field(default_factory=Counter)
    misplaced: list[str] = field(default_factory=list)
    written: Counter[str] = field(default_factory=Counter)

    def is_right(self) -> bool:
        return not self.errors and not self.misplaced


@pytest.fixture
def direct(postgres_server: Postgres, postgres_database: str) -> Iterator[Engine]:
    """An engine that bypasses the pooler."""
    engine = create_engine(postgres_server.url(postgres_database), isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def write_and_read(name: str, recorder: SQLAlchemyProcessRecorder, rounds: range, outcome: Outcome) -> None:
    """Record the application's name in every way, and check that reads return it."""

    def events(count: int) -> list[StoredEvent]:
        return stored_events(count, topic=name, state=name.encode())

    def in_transaction() -> None:
        with recorder.transaction() as session:
            session.execute(text("SELECT 1"))
            recorder.insert_events(events(2))

    # One source per thread, because positions only move forward.
    source = f"{name} {uuid4()}"
    calls: list[tuple[int, Callable[[int], object]]] = [
        (1, lambda _: recorder.insert_events(events(1))),
        (3, lambda _: recorder.insert_events(events(3))),
        (1, lambda n: recorder.insert_events(events(1), tracking=Tracking(source, 2 * n + 1))),
        (0, lambda n: recorder.insert_tracking(Tracking(source, 2 * n + 2))),
        (2, lambda _: in_transaction()),
    ]
    for number in rounds:
        for count, call in calls:
            try:
                call(number)
                outcome.written[name] += count
                for notification in recorder.select_notifications(None, 5):
                    if notification.topic != name:
                        outcome.misplaced.append(f"{name} reads {notification.topic}")
                recorder.max_tracking_id(source)
            except Exception as error:  # noqa: BLE001 (rows of another query can raise anything)
                outcome.errors[f"{type(error).__name__}: {error}"] += 1


def outcome_of_all(url: str, direct: Engine, rounds: range, **settings: str) -> Outcome:
    """Run six applications with two writing threads each, and return the outcome."""
    outcome = Outcome()
    with Applications(url, schema="{application}", **settings) as applications:
        recorders = {name: applications.recorder(name) for name in NAMES}
        run_together(
            [
                lambda name=name, recorder=recorder: write_and_read(name, recorder, rounds, outcome)  # type: ignore[misc] # (mypy cannot type defaults of lambdas)
                for name, recorder in recorders.items()
                for _ in range(2)
            ],
            60,
        )
    with direct.connect() as connection:
        for name, recorder in recorders.items():
            rows = connection.execute(
                text(f"SELECT topic, convert_from(state, 'UTF8') FROM {recorder.events_table}")
            ).all()
            outcome.misplaced += [f"{row} in {recorder.events_table}" for row in rows if tuple(row) != (name, name)]
            if not outcome.errors and len(rows) != outcome.written[name]:
                outcome.misplaced.append(f"{len(rows)} rows in {recorder.events_table}, not {outcome.written[name]}")
            tracked = connection.scalars(text(f"SELECT application_name FROM {recorder.tracking_table}")).all()
            outcome.misplaced += [f"{row} in {recorder.tracking_table}" for row in tracked if row.split()[0] != name]
    return outcome


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_row_is_misplaced(
    pgbouncer: PgBouncer, postgres_database: str, direct: Engine, driver: str, repeat: Callable[[int], range]
) -> None:
    outcome = outcome_of_all(pgbouncer.url(postgres_database, driver), direct, repeat(10))
    assert outcome.errors == Counter()
    assert outcome.misplaced == []
    assert outcome.written == Counter(dict.fromkeys(NAMES, 2 * 7 * len(repeat(10))))


def test_prepared_statements_fail_or_misplace_rows(
    pgbouncer: PgBouncer, postgres_database: str, direct: Engine, repeat: Callable[[int], range]
) -> None:
    url = pgbouncer.url(postgres_database, "psycopg")
    assert not outcome_of_all(url, direct, repeat(10), prepare_statements="on").is_right()


def test_driver_that_splits_every_statement_is_refused(pgbouncer: PgBouncer, postgres_database: str) -> None:
    with (
        Applications(pgbouncer.url(postgres_database, "pg8000")) as applications,
        pytest.raises(NotSupportedError, match="pg8000 cannot be used behind a transaction pooler") as raised,
    ):
        applications.recorder()
    assert "psycopg2 or psycopg" in str(raised.value)


@pytest.mark.parametrize("driver", DRIVERS)
def test_nothing_is_left_on_the_poolers_connections(
    pgbouncer: PgBouncer, postgres_database: str, direct: Engine, driver: str, repeat: Callable[[int], range]
) -> None:
    url = pgbouncer.url(postgres_database, driver)
    assert outcome_of_all(url, direct, repeat(3)).is_right()
    with Applications(url) as applications:
        recorder = applications.recorder("Subscribed")
        recorder.insert_events(stored_events())
        with recorder.subscribe() as subscription:
            next(subscription)

    pooled = create_engine(url)
    pids = set()
    with ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(pooled.connect())
            pids.add(connection.scalar(text("SELECT pg_backend_pid()")))
            assert connection.scalars(text("SELECT pg_listening_channels()")).all() == []
            assert connection.scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 0
            settings = connection.scalars(text("SELECT name FROM pg_settings WHERE source = 'session'")).all()
            # SQLAlchemy sets an isolation level for this transaction.
            assert set(settings) <= SET_BY_POOLER | {"transaction_isolation"}
            assert (
                connection.scalar(
                    text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
                )
                == 0
            )
    pooled.dispose()
    assert len(pids) == 3


@pytest.mark.parametrize("driver", DRIVERS)
def test_subscription_polls_and_logs_it_once(
    pgbouncer: PgBouncer, postgres_database: str, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "eventsourcing_sqlalchemy")
    with Applications(pgbouncer.url(postgres_database, driver)) as applications:
        for name in NAMES[:3]:
            recorder = applications.recorder(name)
            other = applications.elsewhere(recorder)
            for topic in ("first", "second"):
                with recorder.subscribe(gt=recorder.max_notification_id()) as subscription:
                    other.insert_events(stored_events(topic=topic))
                    assert next(subscription).topic == topic
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "SQLALCHEMY_LISTEN_URL" in messages[0]


@pytest.mark.parametrize("driver", DRIVERS)
def test_subscription_listens_through_a_direct_connection(  # noqa: PLR0917 (fixtures)
    pgbouncer: PgBouncer,
    postgres_server: Postgres,
    postgres_database: str,
    driver: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wakeups, "POLL_WHEN_LISTENING", 60.0)
    monkeypatch.setattr(wakeups, "POLL_WHEN_NOT_LISTENING", 60.0)
    caplog.set_level(logging.WARNING, "eventsourcing_sqlalchemy")
    with Applications(
        pgbouncer.url(postgres_database, driver), listen_url=postgres_server.url(postgres_database)
    ) as applications:
        recorder = applications.recorder()
        other = applications.elsewhere(recorder)
        other.insert_events(stored_events(topic="first"))
        with recorder.subscribe() as subscription:
            assert next(subscription).topic == "first"
            numbers = other.insert_events(stored_events(topic="second"))
            second = next(subscription)
            assert ([second.id], second.topic) == (numbers, "second")
    assert caplog.records == []
