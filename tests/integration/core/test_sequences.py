"""Sequences behind their tables, as after data-only restores, logical replication and COPY."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, ProgrammingError, Tracking
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.errors import SequenceBehindError, is_retryable
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, twin

Append = Callable[[SQLAlchemyProcessRecorder], None]


@pytest.fixture(params=["psycopg2", "psycopg", "pg8000"])
def apps(request: pytest.FixtureRequest, database: Database) -> Iterator[Applications]:
    """Applications on PostgreSQL, for each driver."""
    with Applications(database.url(request.param)) as apps:
        yield apps


def append_one(recorder: SQLAlchemyProcessRecorder) -> None:
    recorder.insert_events(stored_events())


def append_many(recorder: SQLAlchemyProcessRecorder) -> None:
    recorder.insert_events(stored_events(3))


def append_large(recorder: SQLAlchemyProcessRecorder) -> None:
    recorder.insert_events(stored_events(2, state=bytes(3 * 2**20)))


def append_tracked(recorder: SQLAlchemyProcessRecorder) -> None:
    recorder.insert_events(stored_events(), tracking=Tracking("upstream", 7))


def append_in_transaction(recorder: SQLAlchemyProcessRecorder) -> None:
    with recorder.transaction():
        recorder.insert_events(stored_events())


def append_in_session_of_user(recorder: SQLAlchemyProcessRecorder) -> None:
    with Session(recorder.datastore.engine) as session:
        recorder.insert_events(stored_events(), session=session)
        session.commit()


def append_in_group(recorder: SQLAlchemyProcessRecorder) -> None:
    with ThreadPoolExecutor(8) as threads:
        errors = [
            future.exception()
            for future in [threads.submit(recorder.insert_events, stored_events()) for _ in range(24)]
        ]
    assert {type(error) for error in errors} == {SequenceBehindError}
    raise errors[0]  # type: ignore[misc]


WAYS: dict[str, Append] = {
    "one": append_one,
    "many": append_many,
    "large": append_large,
    "tracked": append_tracked,
    "transaction": append_in_transaction,
    "session of a user": append_in_session_of_user,
    "group": append_in_group,
}


def execute(recorder: SQLAlchemyProcessRecorder, statement: str) -> None:
    """Run a statement without the recorder; `{t}` is its table."""
    with recorder.datastore.get_connection() as connection:
        connection.exec_driver_sql(
            statement.format(t=recorder.events_table.fullname, s=recorder.schema_name).replace("%", "%%")
        )
        connection.commit()


def load(recorder: SQLAlchemyProcessRecorder, *ids: int) -> None:
    """Write rows like a data-only restore."""
    with recorder.datastore.get_connection() as connection:
        connection.execute(
            recorder.events_table.insert(),
            [
                {"id": id_, "originator_id": uuid4(), "originator_version": 1, "topic": "restored", "state": b""}
                for id_ in ids
            ],
        )
        connection.commit()


def ids_of(recorder: SQLAlchemyProcessRecorder) -> list[int]:
    return [notification.id for notification in recorder.select_notifications(start=None, limit=1000)]


@pytest.mark.parametrize("ids", [range(100, 110), range(1, 50)], ids=["free", "taken"])
@pytest.mark.parametrize("way", WAYS)
def test_append_is_refused_until_the_sequence_is_repaired(apps: Applications, place: str, way: str, ids: range) -> None:
    """If the ids are free, followers would never see the event; if they are taken, retrying cannot resolve the
    conflict.
    """
    recorder = apps.recorder(place=place)
    load(recorder, *ids)
    with pytest.raises(SequenceBehindError, match=r'"app_events_id_seq".*recorder.repair_sequence\(\)') as refusal:
        WAYS[way](recorder)
    assert not isinstance(refusal.value, IntegrityError)
    assert not is_retryable(refusal.value)
    assert (refusal.value.table, refusal.value.sequence) == (
        f'"{place}"."app_events"',
        f'"{place}"."app_events_id_seq"',
    )
    assert ids_of(recorder) == list(ids)
    assert recorder.max_tracking_id("upstream") is None
    assert recorder.repair_sequence()
    assert not recorder.repair_sequence()
    if way != "group":
        WAYS[way](recorder)
    assert recorder.insert_events(stored_events()) == [recorder.max_notification_id()]
    assert ids_of(recorder)[: len(ids)] == list(ids)


def test_a_sequence_moved_back_is_noticed_by_earlier_writers(apps: Applications, place: str) -> None:
    recorder = apps.recorder(place=place)
    load(recorder, *range(5, 10))
    execute(recorder, "ALTER SEQUENCE {t}_id_seq RESTART WITH 100")
    assert not recorder.repair_sequence()  # it is ahead, and has assigned no id since
    recorder.insert_events(stored_events())
    for append in (append_one, append_tracked, append_in_transaction):
        execute(recorder, "SELECT setval('{t}_id_seq', 50)")
        with pytest.raises(SequenceBehindError):
            append(recorder)
    assert ids_of(recorder) == [*range(5, 10), 100]


def test_rows_read_by_this_process_count(apps: Applications, place: str) -> None:
    recorder = apps.recorder(place=place)
    append_one(recorder)
    load(recorder, 50)
    assert ids_of(recorder) == [1, 50]
    with pytest.raises(SequenceBehindError):
        append_one(recorder)


@pytest.mark.parametrize("append", [append_one, append_many, append_in_transaction])
def test_a_truncated_table_starts_again(apps: Applications, place: str, append: Append) -> None:
    recorder = apps.recorder(place=place)
    recorder.insert_events(stored_events(20))
    execute(recorder, "TRUNCATE {t} RESTART IDENTITY")
    append(recorder)
    assert ids_of(recorder)[0] == 2  # the first attempt was compared with the id 20
    append(recorder)
    assert ids_of(recorder)[-1] == len(ids_of(recorder)) + 1  # no second attempt now


def test_transaction_stays_usable_after_the_refusal(apps: Applications, place: str) -> None:
    recorder = apps.recorder(place=place)
    execute(recorder, "CREATE TABLE {s}.mine (a integer)")
    load(recorder, 1)
    with recorder.transaction() as session:
        session.execute(sa.text(f"INSERT INTO {place}.mine VALUES (1)"))
        with pytest.raises(SequenceBehindError):
            recorder.insert_events(stored_events())
    with Session(recorder.datastore.engine) as session:
        assert session.scalar(sa.text(f"SELECT count(*) FROM {place}.mine")) == 1


def test_conflict_stays_a_conflict_whatever_the_index_name(apps: Applications, place: str) -> None:
    recorder = apps.recorder(place=place)
    events = stored_events()
    recorder.insert_events(events)
    for statement in ("SELECT 1", "ALTER INDEX {t}_aggregate_idx RENAME TO of_old"):
        execute(recorder, statement)
        with pytest.raises(IntegrityError):
            recorder.insert_events(events)
        with pytest.raises(IntegrityError), recorder.transaction():
            recorder.insert_events(events)


def test_sequence_is_found_through_the_column(apps: Applications, place: str) -> None:
    """Tables of the published package, renamed ones, identity columns, and a sequence without an owning column."""
    recorder = apps.recorder(place=place)
    kinds = {
        "renamed": "ALTER SEQUENCE {t}_id_seq RENAME TO old_name",
        "identity": "ALTER TABLE {t} ALTER id DROP DEFAULT, ALTER id ADD GENERATED BY DEFAULT AS IDENTITY",
        "shared": "ALTER TABLE {t} ALTER id DROP IDENTITY; CREATE SEQUENCE {s}.counter; "
        "ALTER TABLE {t} ALTER id SET DEFAULT nextval('{s}.counter')",
    }
    for number, statement in enumerate(kinds.values()):
        execute(recorder, statement)
        load(recorder, 1000 * (number + 1))
        with pytest.raises(SequenceBehindError):
            append_one(twin(recorder))
        assert recorder.repair_sequence()
        append_one(recorder)
    assert ids_of(recorder) == [1000, 1001, 2000, 2001, 3000, 3001]


def test_role_that_may_only_use_the_sequence_finds_it_and_cannot_repair_it(database: Database, place: str) -> None:
    with Applications(database.url()) as apps:
        recorder = apps.recorder(place=place)
        load(recorder, 50)
        execute(
            recorder,
            "CREATE ROLE {s}role LOGIN; GRANT USAGE ON SCHEMA {s} TO {s}role; "
            "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA {s} TO {s}role; GRANT USAGE ON {t}_id_seq TO {s}role",
        )
        url = sa.make_url(database.url()).set(username=f"{place}role")
        try:
            with Applications(url.render_as_string(hide_password=False), create_table="no") as limited:
                with pytest.raises(SequenceBehindError):
                    limited.recorder(place=place).insert_events(stored_events())
                with pytest.raises(ProgrammingError, match="SELECT and UPDATE on the sequence"):
                    limited.recorder(place=place).repair_sequence()
        finally:
            execute(recorder, "DROP OWNED BY {s}role; DROP ROLE {s}role")


def test_repair_waits_for_writers(apps: Applications, place: str, database: Database) -> None:
    """An assigned, uncommitted id is not assigned again."""
    recorder = apps.recorder(place=place)
    load(recorder, 50)
    with ThreadPoolExecutor(1) as threads:
        with recorder.transaction() as session:
            execute(recorder, "SELECT setval('{t}_id_seq', 99)")
            assert recorder.insert_events(stored_events()) == [100]
            execute(recorder, "SELECT setval('{t}_id_seq', 3)")
            repaired = threads.submit(recorder.repair_sequence)
            database.wait_for_blocked()
            session.flush()
        assert repaired.result()
    assert recorder.insert_events(stored_events()) == [101]


def test_sqlite_counter_is_repaired(sqlite_url: str) -> None:
    """SQLite itself assigns ids above the highest one, but its counter, which the sweep reads, may be behind."""
    with Applications(sqlite_url) as apps:
        recorder = apps.recorder()
        recorder.insert_events(stored_events(9))
        assert not recorder.repair_sequence()
        for statement in ("UPDATE sqlite_sequence SET seq = 3", "DELETE FROM sqlite_sequence"):
            execute(recorder, statement)
            assert recorder.repair_sequence()
            assert not recorder.repair_sequence()
        execute(recorder, "DELETE FROM sqlite_sequence")
        assert recorder.insert_events(stored_events()) == [10]
