"""SQLite has no space left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import OperationalError, Tracking
from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from eventsourcing_sqlalchemy.errors import ConnectionLostError
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.applications import Applications, stored_events, topics

PAGES = 60  # of 4096 bytes; the tables and their indexes take 10
TOO_MUCH = b"x" * 300_000

_engines: list[sa.Engine] = []


def full_engine() -> sa.Engine:
    """The engine that SQLALCHEMY_ENGINE_TOPIC names."""
    return _engines[-1]


@pytest.fixture
def full(sqlite_url: str) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder on a file with a limited number of pages."""
    engine = sa.create_engine(sqlite_url, poolclass=QueuePool)

    @event.listens_for(engine, "connect")
    def limit(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={PAGES}")

    _engines.append(engine)
    with Applications(sqlite_url) as applications:
        yield applications.recorder("Shop", engine_topic=f"{__name__}:full_engine")
    _engines.pop()
    engine.dispose()


def _in_transaction(recorder: SQLAlchemyProcessRecorder) -> None:
    with recorder.transaction() as session:
        recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1))
        session.execute(sa.text("CREATE TABLE half (a int)"))
        recorder.insert_events(stored_events(state=TOO_MUCH))


CALLS: dict[str, Callable[[SQLAlchemyProcessRecorder], Any]] = {
    "one event": lambda recorder: recorder.insert_events(stored_events(state=TOO_MUCH)),
    "batch": lambda recorder: recorder.insert_events(stored_events(200, state=b"x" * 3000)),
    "tracking first": lambda recorder: recorder.insert_events(
        stored_events(200, state=b"x" * 3000), tracking=Tracking("upstream", 1)
    ),
    "in a transaction": _in_transaction,
}


@pytest.mark.parametrize("call", CALLS)
def test_write_without_space_is_an_operational_error_and_writes_nothing(
    full: SQLAlchemyProcessRecorder, sqlite_url: str, call: str
) -> None:
    full.insert_events(stored_events(topic="before"))
    with pytest.raises(OperationalError, match="full") as raised:
        CALLS[call](full)
    assert not isinstance(raised.value, ConnectionLostError)
    assert raised.value.__cause__ is not None
    assert topics(full) == ["before"]
    assert full.max_tracking_id("upstream") is None
    # Events that fit are still written, by other connections too.
    full.insert_events(stored_events(topic="after"))
    with Applications(sqlite_url) as applications:
        other = applications.recorder("Shop")
        other.insert_events(stored_events(state=TOO_MUCH, topic="other"))
        assert topics(other) == ["before", "after", "other"]
        with other.datastore.engine.connect() as connection:
            assert not sa.inspect(connection).has_table("half")
            assert connection.scalar(sa.text("PRAGMA integrity_check")) == "ok"


# Python ignores the signal SIGXFSZ, so writing beyond the limit is an error of the operating system.
FULL_FILE_SYSTEM = """
import resource, sys
from eventsourcing.persistence import OperationalError
from tests.support.applications import Applications, stored_events, topics
with Applications(sys.argv[1]) as applications:
    recorder = applications.recorder("Shop")
    recorder.insert_events(stored_events(topic="before"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        recorder.insert_events(stored_events(200, state=b"x" * 3000))
    except OperationalError as error:
        print(type(error).__name__, topics(recorder), error.__cause__ is not None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    recorder.insert_events(stored_events(200, state=b"x" * 3000))
    print(len(topics(recorder)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
def test_full_file_system_is_an_operational_error_and_nothing_is_written(sqlite_url: str) -> None:
    command = [sys.executable, "-c", FULL_FILE_SYSTEM, sqlite_url]
    root = Path(__file__).parents[2]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    assert output.splitlines() == ["OperationalError ['before'] True", "201"]
