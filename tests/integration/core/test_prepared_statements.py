"""Prepared statements on a real server: results do not change, whatever happens to the statements."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from eventsourcing.persistence import (
    StoredEvent,
    Tracking,
)

from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics

ENOUGH = 7  # A statement is prepared on its sixth run.
PREPARED = "SELECT statement FROM pg_prepared_statements"

one_connection = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5}


@pytest.fixture(params=["psycopg2", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    """Return a driver whose statements the package prepares."""
    return str(request.param)


@pytest.fixture
def apps(database: Database, driver: str) -> Iterator[Applications]:
    """Applications with one connection, which holds all prepared statements."""
    with Applications(database.url(driver), **one_connection) as apps:
        yield apps


@pytest.fixture
def recorder(apps: Applications, place: str) -> SQLAlchemyProcessRecorder:
    return apps.recorder("Shop", place)


def prepared(recorder: SQLAlchemyProcessRecorder) -> list[str]:
    """Return the prepared statements of the pooled connection.

    The query is a call of the package: after a rollback in a user's transaction, psycopg deallocates what it prepared.
    """
    return [row[0] for row in recorder.datastore.run(lambda executor: executor.fetch(PREPARED))]


def administer(recorder: SQLAlchemyProcessRecorder, statement: str) -> None:
    """Run a statement on the pooled connection, as a user may."""
    with recorder.datastore.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(statement)


def table(recorder: SQLAlchemyProcessRecorder) -> str:
    return recorder.datastore.dialect.render(
        next(spec.name for spec in recorder.tables if spec.kind == "events"),
        parameters=False,
    )


def use(recorder: SQLAlchemyProcessRecorder, times: int = ENOUGH) -> list[list[StoredEvent]]:
    """Repeat every call, and compare the results."""
    written = []
    for _ in range(times):
        originator_id = uuid4()
        events = stored_events(3, originator_id, topic="50%s 'é' \\", state=b"\0'\\%s")
        position = (recorder.max_tracking_id("upstream") or 0) + 1
        ids = recorder.insert_events(events, tracking=Tracking("upstream", position))
        assert ids is not None
        assert list(ids) == list(range(ids[0], ids[0] + 3))
        more = stored_events(1, originator_id, first_version=4)
        assert recorder.insert_events(more) == [ids[0] + 3]
        assert recorder.select_events(events[0].originator_id) == [*events, *more]
        assert recorder.select_events(events[0].originator_id, gt=1, lte=3, desc=True, limit=1) == [events[2]]
        assert recorder.select_events(uuid4()) == []
        found = recorder.select_notifications(ids[0], 2, topics=[events[0].topic])
        assert [(n.id, n.originator_id, n.originator_version, n.topic, n.state) for n in found] == [
            (number, e.originator_id, e.originator_version, e.topic, e.state)
            for number, e in zip(ids[:2], events[:2], strict=True)
        ]
        assert recorder.max_notification_id() == ids[0] + 3
        assert recorder.max_tracking_id("upstream") == position
        written.append([*events, *more])
    return written


# -- prepared, and with the same results --


def test_statement_is_prepared_on_the_connection_that_has_run_it_six_times(recorder: SQLAlchemyProcessRecorder) -> None:
    originator_id = uuid4()

    def is_prepared() -> bool:
        return any("ORDER BY originator_version ASC" in statement for statement in prepared(recorder))

    for _ in range(5):
        recorder.select_events(originator_id)
        assert not is_prepared()
    recorder.select_events(originator_id)
    assert is_prepared()


def test_every_call_returns_the_same_before_and_after_it_is_prepared(recorder: SQLAlchemyProcessRecorder) -> None:
    use(recorder, 3 * ENOUGH)
    statements = prepared(recorder)
    for part in ("INSERT INTO", "ON CONFLICT", "topic IN", "originator_version DESC", "LIMIT"):
        assert any(part in statement for statement in statements), part
    # The notifier's statements come from another thread, and may be among them.
    assert len(statements) == len(set(statements)) <= 8


@pytest.mark.parametrize("mode", ["off", "auto", "on"])
def test_nothing_is_prepared_when_off(database: Database, driver: str, place: str, mode: str) -> None:
    with Applications(database.url(driver), **one_connection, prepare_statements=mode) as apps:
        recorder = apps.recorder("Shop", place)
        use(recorder)
        assert (prepared(recorder) == []) == (mode == "off")


def test_users_transaction_prepares_nothing(recorder: SQLAlchemyProcessRecorder) -> None:
    """Psycopg itself does, under its own names."""
    with recorder.transaction():
        use(recorder)
    statement = f"{PREPARED} WHERE name LIKE 'eventsourcing%'"
    found = recorder.datastore.run(lambda executor: executor.fetch(statement))
    assert not [row for row in found if "pg_notify" not in row[0]]


NAMES = ["50%", "a%sb", "a%%s", "%(x)s", "it's", 'say "hi"', "back\\slash", "naïve 表 😀", "$1 $2", "; DROP --", "(),"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_used_unchanged(apps: Applications, place: str, name: str) -> None:
    recorder = apps.recorder("Shop", place + name, table_prefix=name)
    other = apps.recorder("Shop", place + name.replace("%", "%%"), table_prefix=name + "%")
    written = use(recorder)
    assert len(topics(recorder)) == sum(map(len, written))
    assert topics(other) == []
    quoted = '"' + (place + name).replace('"', '""') + '"'
    assert [s for s in prepared(recorder) if "INSERT" in s and quoted in s]


@pytest.mark.parametrize("value", [2**31, 2**63 - 1, 2**63, 2**70, -(2**70)])
def test_limit_outside_the_column_range_means_the_same_before_and_after(
    recorder: SQLAlchemyProcessRecorder, value: int
) -> None:
    """Also in a user's table with four-byte integer columns."""
    events = stored_events(2)
    recorder.insert_events(events)
    administer(recorder, f"ALTER TABLE {table(recorder)} ALTER originator_version TYPE int, ALTER id TYPE int")
    expected = events if value > 0 else []
    for _ in range(ENOUGH):
        assert recorder.select_events(events[0].originator_id, lte=value) == expected
        assert len(recorder.select_notifications(None, 10, stop=value)) == len(expected)


def test_many_applications_on_one_connection_keep_a_hundred_prepared(apps: Applications, place: str) -> None:
    recorders = [apps.recorder("Shop", f"{place}{number}") for number in range(18)]
    for recorder in recorders:
        use(recorder)
        assert len(prepared(recorder)) <= 100
    assert len(prepared(recorders[0])) == 100
    # The evicted statements still work.
    for recorder in recorders:
        assert len(topics(recorder)) == 4 * ENOUGH
        use(recorder)
        assert len(topics(recorder)) == 8 * ENOUGH
    assert len(prepared(recorders[0])) == 100


def test_server_keeps_no_values_of_a_prepared_statement(recorder: SQLAlchemyProcessRecorder) -> None:
    """The server keeps the text of a prepared statement for the lifetime of the connection."""
    for _ in range(ENOUGH):
        recorder.insert_events(stored_events(topic="secret", state=b"x" * 100_000))
    statements = prepared(recorder)
    assert [s for s in statements if "INSERT" in s]
    assert not [s for s in statements if "secret" in s]
    assert max(map(len, statements)) < 3000
