"""High-water marks of many tables, from id sequences that may be ahead, and recorded positions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import Tracking

from eventsourcing_sqlalchemy.high_water import HighWaterMarks, read_positions
from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.applications import Applications, stored_events
from tests.support.deadlines import wait_until


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def applications(request: pytest.FixtureRequest) -> Iterator[Applications]:
    with Applications(request.getfixturevalue(request.param)) as applications:
        yield applications


def table(recorder: SQLAlchemyProcessRecorder, kind: str) -> TableName:
    return next(spec.name for spec in recorder.tables if spec.kind == kind)


def read(recorder: SQLAlchemyProcessRecorder, *tables: TableName) -> dict[TableName, int]:
    return HighWaterMarks(recorder.datastore).read(tables)


def test_last_ids_of_many_tables(applications: Applications) -> None:
    some = [applications.recorder(name, place) for name in ("App", 'Quo"te%s\\d') for place in ("one", "tw'o")]
    for number, recorder in enumerate(some):
        recorder.insert_events(stored_events(number)) if number else None
    assert read(some[0], *[table(each, "events") for each in some]) == {
        table(each, "events"): number for number, each in enumerate(some)
    }


def test_table_that_is_dropped_and_created_again(applications: Applications) -> None:
    one, two = applications.recorder("One"), applications.recorder("Two")
    for each in (one, two):
        each.insert_events(stored_events(2))
    tables = [table(one, "events"), table(two, "events")]
    ids = HighWaterMarks(one.datastore)
    assert list(ids.read(tables).values()) == [2, 2]
    with one.datastore.get_connection() as connection:
        connection.execute(sa.text("DROP TABLE one_events"))
        connection.commit()
    assert ids.read(tables) == {tables[1]: 2}
    one.create_table()
    assert ids.read(tables) == {tables[0]: 0, tables[1]: 2}


def test_table_without_a_sequence_is_read_directly(applications: Applications) -> None:
    recorder = applications.recorder()
    recorder.insert_events(stored_events(3))
    with recorder.datastore.get_connection() as connection:
        connection.execute(sa.text("CREATE TABLE plain AS SELECT * FROM app_events"))
        connection.commit()
    name = TableName(table(recorder, "events").schema, "plain")
    assert read(recorder, name) == {name: 3}


def test_unused_tables_are_evicted(applications: Applications) -> None:
    one, two = applications.recorder("App", "one"), applications.recorder("App", "two")
    ids = HighWaterMarks(one.datastore)
    assert len(ids.read([table(one, "events"), table(two, "events")])) == 2
    ids.read([table(two, "events")])
    assert list(ids._sequences) == [table(two, "events")]  # noqa: SLF001 (unused entries cost memory)


def test_sequence_runs_ahead_of_a_commit_and_stays_ahead_after_a_rollback(applications: Applications) -> None:
    recorder = applications.recorder()
    events = table(recorder, "events")
    ids = HighWaterMarks(recorder.datastore)
    can_be_ahead = recorder.datastore.dialect.is_server
    with recorder.transaction() as session:
        recorder.insert_events(stored_events(2), session=session)
        if can_be_ahead:
            assert ids.read([events]) == {events: 2}
            during, later = ids.transaction_horizon(), ids.transaction_horizon()
            assert during is not None
            assert later is not None
            assert later[0] < during[1]  # so no conclusion is possible yet
        session.rollback()
    assert ids.read([events]) == {events: 2 if can_be_ahead else 0}
    assert recorder.max_notification_id() is None
    assert (ids.transaction_horizon() is not None) == can_be_ahead
    if can_be_ahead:

        def has_passed() -> bool:
            after = ids.transaction_horizon()
            return after is not None and during is not None and after[0] >= during[1]

        wait_until(has_passed, "all transactions that were open have ended")  # of other tests, too


def test_positions_of_many_tables(applications: Applications) -> None:
    some = [applications.recorder("App", f"place{number}") for number in range(3)]
    some[0].insert_tracking(Tracking("A", 5))
    some[0].insert_tracking(Tracking("B", 6))
    some[2].insert_tracking(Tracking("A", 7))
    tables = [table(each, "tracking") for each in some]
    missing = TableName(tables[0].schema, "nothing")
    assert read_positions(some[0].datastore, [tables[0], missing, *tables[1:]]) == {
        tables[0]: {"A": 5, "B": 6},
        tables[1]: {},
        tables[2]: {"A": 7},
    }


def test_wake_ups_name_every_table(applications: Applications) -> None:
    one, two = applications.recorder("One"), applications.recorder("Two")
    on_commit: list[int | None] = []
    table_listener = one.datastore.shared.wakeups.listen_to_all(
        lambda keys: on_commit.extend([None] if keys is None else keys)
    )
    one.insert_events(stored_events())
    two.insert_events(stored_events())
    assert [key for key in on_commit if key is not None] == [one.wakeup_key, two.wakeup_key]
    other = applications.elsewhere(two)
    on_commit.clear()
    other.insert_events(stored_events())
    expected = two.wakeup_key if two.datastore.dialect.can_notify else None
    wait_until(lambda: expected in on_commit, "the wake-up arrives")
    table_listener.close()
    table_listener.close()
    on_commit.clear()
    one.insert_events(stored_events())
    assert on_commit == []
