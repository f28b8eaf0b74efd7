"""Forks in the middle of something: a child never ends what its parent has begun."""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path

import pytest
from eventsourcing.persistence import InterfaceError

from tenancy.demo.server import Postgres
from tests.applications import Applications, stored_events, topics
from tests.isolation.test_connections import forks, in_child


@forks
@pytest.mark.parametrize("parent_commits", [True, False])
@pytest.mark.parametrize("database", ["psycopg2", "psycopg", "pg8000", "sqlite"])
def test_child_that_leaves_the_block_does_not_end_the_transaction(
    database: str, parent_commits: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The child wants the contrary of what the parent does."""
    if database == "sqlite":
        url = f"sqlite:///{tmp_path / 'test.db'}"
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.url(request.getfixturevalue("postgres_database"), database)
    with Applications(url) as apps:
        recorder = apps.recorder()
        transaction = recorder.transaction()

        def leave() -> None:
            nonlocal transaction
            error = SystemExit() if parent_commits else None
            transaction.__exit__(type(error) if error else None, error, None)
            del transaction
            gc.collect()

        with suppress(ZeroDivisionError), transaction:
            recorder.insert_events(stored_events(topic="before"))
            in_child(leave)
            recorder.insert_events(stored_events(topic="after"))
            if not parent_commits:
                raise ZeroDivisionError
        assert topics(recorder) == (["before", "after"] if parent_commits else [])


@forks
def test_child_of_a_parent_that_was_using_sqlite_is_refused(sqlite_url: str) -> None:
    with Applications(sqlite_url) as apps:
        recorder = apps.recorder()

        def write() -> str:
            try:
                recorder.insert_events(stored_events(topic="child"))
            except InterfaceError as error:
                return str(error)
            return "written"

        with recorder.transaction():
            recorder.insert_events(stored_events(topic="parent"))
            assert "in use when this process was forked" in in_child(write)
        assert topics(recorder) == ["parent"]
        # At rest again.
        assert in_child(write) == "written"
        assert topics(recorder) == ["parent", "child"]
