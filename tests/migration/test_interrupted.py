"""A migration that waits, loses its connection or is killed leaves the tables at exactly one version."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import OperationalError, Tracking

from eventsourcing_sqlalchemy.migrations import locking
from eventsourcing_sqlalchemy.migrations.locking import retry_while_locked
from tests.support.applications import Applications, stored_events
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.full_catalog import full_catalog
from tests.support.published_tables import PublishedTables
from tests.support.relay import Point, Relay


@pytest.fixture
def old(postgres_url: str) -> Iterator[PublishedTables]:
    """Tables of version 0 on PostgreSQL."""
    tables = PublishedTables(postgres_url, None)
    yield tables
    tables.close()


def type_of_name(old: PublishedTables) -> str:
    (((type_),),) = old.rows(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'school_tracking'::regclass AND attname = 'application_name'"
    )
    return str(type_)


def test_writers_go_on_while_a_migration_waits_for_a_reader(
    postgres_url: str, old: PublishedTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with an attempt that waits as long as it takes."""
    reader = sa.create_engine(postgres_url)
    with (
        Applications(postgres_url, lock_timeout=5) as apps,
        ThreadPoolExecutor(1) as thread,
        reader.begin() as reading,
    ):
        recorder = apps.recorder("School")
        reading.exec_driver_sql("SELECT * FROM school_tracking")
        attempts = threading.Event()
        looked = recorder.datastore.dialect.begin
        waiting = 0

        def begin(*arguments: object) -> None:
            nonlocal waiting
            waiting += 1
            if waiting > 2:
                attempts.set()
            looked(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(recorder.datastore.dialect, "begin", begin)
        migration = thread.submit(recorder.migrate_tables, lock_timeout=0.05)
        number = 7
        while not attempts.is_set():
            number += 1
            recorder.insert_tracking(Tracking("upstream", number))
        assert not migration.done()
        assert type_of_name(old) == "character varying(32)"
        reading.commit()
        assert migration.result(DEADLINE_SECONDS)
        assert recorder.max_tracking_id("upstream") == number > 8
    assert type_of_name(old) == "text"
    reader.dispose()


def test_a_reader_that_does_not_end_stops_the_migration(
    postgres_url: str, old: PublishedTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_MAX_PAUSE", 0.01)
    reader = sa.create_engine(postgres_url)
    with Applications(postgres_url) as apps, reader.begin() as reading:
        recorder = apps.recorder("School")
        reading.exec_driver_sql("SELECT * FROM school_tracking")
        with pytest.raises(OperationalError, match="lock timeout"):
            recorder.migrate_tables(lock_timeout=0.01)
        recorder.insert_tracking(Tracking("upstream", 8))
    assert type_of_name(old) == "character varying(32)"
    reader.dispose()


@pytest.mark.parametrize("point", ["before", "during", "after"])
@pytest.mark.parametrize("marker", ["ALTER TABLE", "COMMIT"])
def test_lost_connection(postgres_url: str, old: PublishedTables, point: Point, marker: str) -> None:
    with Relay(postgres_url) as relay, Applications(relay.url()) as apps:
        recorder = apps.recorder("School")
        relay.break_at(point, marker)
        recorder.migrate_tables()
        assert relay.broken == 1
        assert type_of_name(old) == "text"
        assert recorder.max_tracking_id("upstream") == 7


def test_only_what_may_pass_is_retried() -> None:
    calls = []

    def attempt() -> None:
        calls.append(1)
        msg = "no"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="no"):
        retry_while_locked(attempt)
    assert len(calls) == 1


# -- killed --

PROGRAM = """
import os, signal, sys
from eventsourcing.utils import Environment
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory

url, left = sys.argv[1], int(sys.argv[2])
recorder = SQLAlchemyFactory(Environment("School", {"SQLALCHEMY_URL": url})).process_recorder()
dialect = type(recorder.datastore.dialect)
run = dialect.execute_once

def kill(self, cursor, statement, parameters):
    global left
    run(self, cursor, statement, parameters)
    if statement.lstrip().startswith(("CREATE", "DROP", "ALTER", "INSERT")):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

dialect.execute_once = kill
recorder.migrate_tables()
"""


@pytest.mark.parametrize(("database", "numbers"), [("sqlite", (1, 2, 4, 12)), ("postgres", (1,))])
def test_killed_after_a_statement(request: pytest.FixtureRequest, database: str, numbers: tuple[int, ...]) -> None:
    """On SQLite: after the copy, after the table was dropped, after its rows were copied back, before the commit."""
    url: str = request.getfixturevalue(f"{database}_url")
    old = PublishedTables(url, None)
    before = full_catalog(url, None)
    for number in numbers:
        assert subprocess.run([sys.executable, "-c", PROGRAM, url, str(number)], check=False).returncode == -9
        wait_until(lambda: full_catalog(url, None) == before, "the server has rolled back")
        assert old.rows("SELECT count(*) FROM school_events") == [(2,)]
    assert subprocess.run([sys.executable, "-c", PROGRAM, url, "0"], check=False).returncode == 0
    assert full_catalog(url, None) != before
    with Applications(url) as apps:
        assert apps.recorder("School").insert_events(stored_events()) == [3]
    old.close()
