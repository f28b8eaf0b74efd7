"""Defects 7, 11, 12, 14 and 15 of the published package: where tables are, and how they are created.

Wrong variants as in test_defects_of_operation.py.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import (
    DataError,
    OperationalError,
    PersistenceError,
    ProgrammingError,
    Tracking,
)

from eventsourcing_sqlalchemy import naming
from eventsourcing_sqlalchemy.dialects.postgresql.dialect import PostgreSQLDialect
from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import run_together
from tests.support.followers import Follower

# -- 7 --

NAMES = ("School", "acme-school", "acme school", "Größe", "select", "1", "x" * 63)


def check_schema_is_created(apps: Applications, name: str) -> None:
    recorder = apps.recorder(place=name)
    recorder.insert_events(stored_events())
    assert len(topics(recorder)) == 1
    with recorder.datastore.engine.connect() as connection:
        assert "app_events" in sa.inspect(connection).get_table_names(schema=name)


def leave_out(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Create tables, skipping statements that contain a text."""
    run = PostgreSQLDialect.run_script

    def run_others(self: PostgreSQLDialect, connection: Any, statements: Sequence[str]) -> None:
        run(self, connection, [statement for statement in statements if text not in statement])

    monkeypatch.setattr(PostgreSQLDialect, "run_script", run_others)


def test_defect_07_schema_is_created_whatever_its_name(apps: Applications, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong variants: CREATE SCHEMA is skipped; names are not quoted."""
    for name in NAMES:
        check_schema_is_created(apps, name)
    with monkeypatch.context() as patch:
        leave_out(patch, "CREATE SCHEMA")
        with pytest.raises(ProgrammingError):
            check_schema_is_created(apps, "other")
    monkeypatch.setattr(naming, "quote", lambda identifier: identifier)
    with pytest.raises(ProgrammingError):
        check_schema_is_created(apps, "acme-school")


# -- 11 --


def check_tables_are_created_together(apps: Applications, place: str) -> None:
    # Each on a separate engine, as in another process.
    recorders = [apps.elsewhere(apps.recorder(place=place, create_table="no")) for _ in range(6)]
    for recorder in recorders:
        recorder.datastore.default_schema()  # Connected beforehand, so that they start at the same moment.
    run_together([recorder.create_table for recorder in recorders])
    run_together([partial(recorder.insert_events, stored_events()) for recorder in recorders])
    assert len(topics(recorders[0])) == len(recorders)


def test_defect_11_tables_are_created_concurrently(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, repeat: Callable[[int], range]
) -> None:
    """Wrong variant: tables are created without a lock."""
    for number in repeat(3):
        with Applications(postgres_url) as apps:
            check_tables_are_created_together(apps, f"place{number}")
    leave_out(monkeypatch, "pg_advisory_xact_lock")

    def try_often() -> None:
        for number in range(50):
            with Applications(postgres_url) as apps:
                check_tables_are_created_together(apps, f"wrong{number}")

    with pytest.raises(PersistenceError):
        try_often()


def test_defect_11_record_classes_are_freed_with_their_recorder(apps: Applications) -> None:
    """Seen to fail against one module-wide registry for all classes."""
    forgotten = []
    for number in range(3):
        recorder = apps.recorder(place=f"place{number}")
        classes = run_together([partial(getattr, recorder, "events_record_cls")] * 8)
        with recorder.transaction(commit=False) as session:
            assert session.query(classes[0]).count() == 0
        forgotten.append(weakref.ref(classes[0]))
        engine = recorder.datastore.engine
        del recorder, classes, session
    engine.clear_compiled_cache()  # SQLAlchemy's cache, which keeps the last few hundred statements.
    gc.collect()
    assert [reference() for reference in forgotten] == [None] * 3


# -- 12 --


def check_places_are_kept_apart(recorders: list[SQLAlchemyProcessRecorder]) -> None:
    for recorder in recorders:
        recorder.insert_events(stored_events(topic=str(recorder)))
    assert [topics(recorder) for recorder in recorders] == [[str(recorder)] for recorder in recorders]
    # Locks and wake-ups are per table, too: inside one application's transaction, the others can write.
    with recorders[0].transaction():
        recorders[0].insert_events(stored_events())
        for recorder in recorders[1:]:
            recorder.insert_events(stored_events())
    assert len({recorder.wakeup_key for recorder in recorders}) == len(recorders)


def test_defect_12_dots_in_names_cause_no_collision(apps: Applications, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong variant: the key joins schema and table with a dot."""

    def pair(number: int) -> list[SQLAlchemyProcessRecorder]:
        return [
            apps.recorder(place="a", table_prefix=f"b.c{number}", lock_timeout=0.5),
            apps.recorder(place="a.b", table_prefix=f"c{number}", lock_timeout=0.5),
        ]

    check_places_are_kept_apart(pair(1))
    monkeypatch.setattr(TableName, "key", property(lambda self: len(f"{self.schema}.{self.name}")))
    with pytest.raises(OperationalError):
        check_places_are_kept_apart(pair(2))


def test_defect_12_no_schema_and_public_are_the_same_place(apps: Applications, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail against keys and names that use the schema as given, None or `public`."""
    monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_LISTENING", 60.0)
    default, public = apps.recorder(lock_timeout=0.1), apps.recorder(place="public", lock_timeout=0.1)
    with Follower(default) as follower:
        public.insert_events(stored_events(topic="first"))
        follower.wait_for("first")
    assert topics(default) == topics(public) == ["first"]
    assert default.wakeup_key == public.wakeup_key
    # One writer lock: otherwise the ids of the two would become visible out of order.
    with default.transaction():
        default.insert_events(stored_events())
        with pytest.raises(OperationalError):
            public.insert_events(stored_events())


# -- 14 --


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_defect_14_long_application_names_are_recorded(database: str, request: pytest.FixtureRequest) -> None:
    """Seen to fail against the published package's column, varchar(32)."""
    name = "Ä" * 50
    with Applications(request.getfixturevalue(database)) as apps:
        recorder = apps.recorder()
        recorder.insert_events(stored_events(), tracking=Tracking(name, 1))
        recorder.insert_tracking(Tracking(name, 2))
        assert recorder.max_tracking_id(name) == 2
        if database == "postgres_url":
            with recorder.transaction() as session:
                session.execute(sa.text("ALTER TABLE app_tracking ALTER application_name TYPE varchar(50)"))
            recorder.insert_tracking(Tracking(name, 3))
            with pytest.raises(DataError, match="application names"):
                recorder.insert_tracking(Tracking(name + "x", 3))


def check_long_names_are_refused(apps: Applications) -> None:
    suffix = len("_events_aggregate_idx")
    apps.recorder(place="x" * 63)
    apps.recorder("x" * (63 - suffix))
    options: dict[str, Any]
    for options in (
        {"place": "x" * 64},
        {"place": "ä" * 32},
        {"name": "y" * (64 - suffix)},
        {"table_prefix": "x" * (64 - suffix - len("App"))},
    ):
        with pytest.raises(ProgrammingError, match=r"(?s)Identifier too long.* has \d+ bytes.*limit is 63.*shorter"):
            apps.recorder(**options)


def test_defect_14_identifiers_of_more_than_63_bytes_are_refused(
    apps: Applications, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant: the length is not checked, and PostgreSQL truncates names silently."""
    check_long_names_are_refused(apps)
    monkeypatch.setattr(PostgreSQLDialect, "identifier_limit", 1000)
    with pytest.raises((pytest.fail.Exception, PersistenceError)):
        check_long_names_are_refused(apps)


# -- 15 --

IN_MEMORY = ("sqlite://", "sqlite:///", "sqlite:///:memory:")


def check_other_threads_find_the_tables(url: str) -> None:
    with Applications(url) as apps:
        recorder, private = apps.recorder(), apps.recorder()
        run_together([lambda: recorder.insert_events(stored_events(2)) for _ in range(8)])
        assert len(topics(recorder)) == 16
        assert topics(private) == []


@pytest.mark.parametrize("url", IN_MEMORY)
def test_defect_15_every_url_of_an_in_memory_database_is_recognized(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong variant: only `:memory:` is recognised."""
    check_other_threads_find_the_tables(url)
    if ":memory:" not in url:
        monkeypatch.setattr(
            "eventsourcing_sqlalchemy.dialects.sqlite.dialect.is_memory", lambda url: url.database == ":memory:"
        )
        with pytest.raises((PersistenceError, AssertionError)):
            check_other_threads_find_the_tables(url)
