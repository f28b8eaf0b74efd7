"""Prepared statements that the server has lost, or whose name it uses for another statement: calls still succeed."""

from __future__ import annotations

from contextlib import closing, suppress
from functools import partial
from uuid import uuid4

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, PersistenceError, ProgrammingError, Tracking

from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.integration.core.test_prepared_statements import (
    ENOUGH,
    administer,
    apps,
    driver,
    prepared,
    recorder,
    table,
    use,
)
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import run_together
from tests.support.pgbouncer import PgBouncer

__all__ = ["apps", "driver", "recorder"]  # the fixtures


@pytest.mark.parametrize("statement", ["DISCARD ALL", "DEALLOCATE ALL"])
def test_call_succeeds_after_a_user_has_dropped_what_was_prepared(
    recorder: SQLAlchemyProcessRecorder, statement: str
) -> None:
    for _ in range(2):
        use(recorder)
        assert prepared(recorder)
        administer(recorder, statement)
        assert prepared(recorder) == []
        use(recorder, 2)
    # They are prepared again after as many runs.
    use(recorder)
    assert any("INSERT" in found for found in prepared(recorder))


def test_eviction_of_a_dropped_statement_is_not_an_error(apps: Applications, place: str) -> None:
    """The evicted statement is already gone."""
    recorders = [apps.recorder("Shop", f"{place}{number}") for number in range(18)]
    for each in recorders:
        use(each)
    assert len(prepared(recorders[0])) == 100
    administer(recorders[0], "DEALLOCATE ALL")
    fresh = apps.recorder("Other", f"{place}fresh")
    use(fresh)
    for each in recorders:
        use(each, 1)


CHANGES = ["ALTER topic TYPE varchar", "ALTER originator_id TYPE text", "ALTER id TYPE int", "ADD COLUMN more text"]


def alter(recorder: SQLAlchemyProcessRecorder, database: Database, by: str, change: str) -> None:
    statement = f"ALTER TABLE {table(recorder)} {change}"
    if by == "the same connection":
        administer(recorder, statement)
    else:
        with database.engine.connect() as connection:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("by", ["the same connection", "another connection"])
@pytest.mark.parametrize("change", CHANGES)
def test_call_succeeds_after_a_table_was_altered(
    recorder: SQLAlchemyProcessRecorder, database: Database, by: str, change: str
) -> None:
    written = use(recorder)
    alter(recorder, database, by, change)
    for events in written:
        assert recorder.select_events(events[0].originator_id) == events
    if "originator_id" not in change:  # otherwise the new column would refuse the rows
        use(recorder)


def test_recreated_tables_are_read_and_written(recorder: SQLAlchemyProcessRecorder, database: Database) -> None:
    use(recorder)
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f'DROP SCHEMA "{recorder.schema_name}" CASCADE')
    with pytest.raises(ProgrammingError, match="CREATE_TABLE"):
        recorder.select_events(uuid4())
    with pytest.raises(ProgrammingError, match="CREATE_TABLE"):
        recorder.insert_events(stored_events())
    recorder.create_table()
    assert topics(recorder) == []
    assert len(use(recorder)) == ENOUGH


def test_statement_that_cannot_be_prepared_names_the_cause_each_time(recorder: SQLAlchemyProcessRecorder) -> None:
    """Its table is renamed after five runs, so PREPARE itself fails, and there is nothing to execute."""
    originator_id = uuid4()
    for _ in range(5):
        recorder.select_events(originator_id)
    administer(recorder, f"ALTER TABLE {table(recorder)} RENAME TO away")
    for _ in range(ENOUGH):
        with pytest.raises(ProgrammingError, match="CREATE_TABLE"):
            recorder.select_events(originator_id)
    administer(recorder, f'ALTER TABLE "{recorder.schema_name}".away RENAME TO {recorder.events_table_name}')
    for _ in range(ENOUGH):
        assert recorder.select_events(originator_id) == []


def test_feature_that_the_server_refuses_is_named_each_time(recorder: SQLAlchemyProcessRecorder) -> None:
    """A view in place of the table, with a column that cannot be written. Its SQLSTATE is that of an outdated
    statement.
    """
    for _ in range(5):
        recorder.insert_events(stored_events())
    administer(
        recorder,
        f"ALTER TABLE {table(recorder)} RENAME TO kept; CREATE VIEW {table(recorder)} AS "
        f"SELECT id, originator_id, originator_version, upper(topic) AS topic, state "
        f'FROM "{recorder.schema_name}".kept',
    )
    for _ in range(ENOUGH):
        with pytest.raises(Exception, match="cannot insert into column"):
            recorder.insert_events(stored_events())


def test_conflict_leaves_prepared_statements_usable(recorder: SQLAlchemyProcessRecorder) -> None:
    events = stored_events()
    recorder.insert_events(events)
    for number in range(2 * ENOUGH):
        # The conflict occurs during the preparation, and after it.
        with pytest.raises(IntegrityError):
            recorder.insert_events(events)
        if number > ENOUGH:
            recorder.insert_events(stored_events(topic="between"))
            recorder.insert_events(stored_events(topic="between"), tracking=Tracking("upstream", number))
            with pytest.raises(IntegrityError):
                recorder.insert_events(stored_events(), tracking=Tracking("upstream", number))
    assert topics(recorder) == ["module:Class"] + ["between"] * 2 * (ENOUGH - 1)
    assert any("INSERT" in statement for statement in prepared(recorder))


def test_statement_in_a_transaction_after_a_user_has_dropped_what_was_prepared(
    recorder: SQLAlchemyProcessRecorder,
) -> None:
    use(recorder)
    with recorder.transaction() as session:
        session.execute(sa.text("DEALLOCATE ALL"))
        use(recorder, 1)
    use(recorder, 1)


def test_statement_left_by_another_client_on_the_server_process_is_not_run(apps: Applications, place: str) -> None:
    """A pooler may hand over a server process with another client's statement: another application's INSERT."""
    victim, recorder = apps.recorder("Victim", f"{place}victim"), apps.recorder("Shop", place)
    connect_anew(recorder)
    for _ in range(ENOUGH):
        victim.insert_events(stored_events(topic="theirs"))
    connect_anew(recorder)
    for _ in range(ENOUGH):
        with suppress(PersistenceError):
            recorder.insert_events(stored_events(topic="mine"))
    assert topics(victim) == ["theirs"] * ENOUGH
    assert topics(recorder) == ["mine"] * ENOUGH


def connect_anew(recorder: SQLAlchemyProcessRecorder) -> None:
    """Reset the pooled connection to that of a client which has just been given the same server process."""
    with closing(recorder.datastore.engine.raw_connection()) as connection:
        recorder.datastore.dialect.connected(connection.dbapi_connection, recorder.datastore.settings)


def test_enabled_behind_a_transaction_pooler_no_event_is_misplaced(
    pgbouncer: PgBouncer, postgres_database: str, driver: str
) -> None:
    """Each transaction may use another server process, where a name can belong to another client."""
    with Applications(pgbouncer.url(postgres_database, driver), pool_size=3, prepare_statements="on") as apps:
        recorders = [apps.recorder("Shop", f"place {number}") for number in range(6)]

        def write(recorder: SQLAlchemyProcessRecorder) -> None:
            for _ in range(20):
                with suppress(PersistenceError):
                    recorder.insert_events(stored_events(topic=str(recorder.schema_name)))

        run_together([partial(write, recorder) for recorder in recorders])
    with Applications(pgbouncer.url(postgres_database, driver), prepare_statements="off") as apps:
        for recorder in recorders:
            found = topics(apps.recorder("Shop", recorder.schema_name))
            assert found == [recorder.schema_name] * 20


def test_statement_in_the_packages_transaction_is_sent_unprepared(recorder: SQLAlchemyProcessRecorder) -> None:
    """A statement that the server has lost would end the transaction."""
    run = recorder.datastore.run
    for _ in range(ENOUGH):
        run(lambda executor: executor.fetch("SELECT %s::int", (1,)))
    administer(recorder, "DEALLOCATE ALL")
    for _ in range(ENOUGH):
        rows = run(lambda executor: [executor.fetch("BEGIN"), executor.fetch("SELECT %s::int", (1,))][1])
        assert [row[0] for row in rows] == [1]
    assert prepared(recorder) == []
