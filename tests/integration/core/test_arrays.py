"""Events are read back unchanged: several as arrays, in each form, and a single one, whatever the connection's
encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import DataError, StoredEvent, Tracking
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.postgresql.arrays import BinaryArray
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.engine_settings import OriginatorIDType
from eventsourcing_sqlalchemy.engines.executors import ConnectionExecutor, CursorExecutor
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics, twin
from tests.unit.core.test_arrays import states, texts, versions

Insert = Callable[[SQLAlchemyProcessRecorder, Sequence[StoredEvent]], Sequence[int] | None]


def alone(recorder: SQLAlchemyProcessRecorder, events: Sequence[StoredEvent]) -> Sequence[int] | None:
    return recorder.insert_events(events)


def with_tracking(recorder: SQLAlchemyProcessRecorder, events: Sequence[StoredEvent]) -> Sequence[int] | None:
    position = (recorder.max_tracking_id("upstream") or 0) + 1
    return recorder.insert_events(events, tracking=Tracking("upstream", position))


def in_session(recorder: SQLAlchemyProcessRecorder, events: Sequence[StoredEvent]) -> Sequence[int] | None:
    with recorder.transaction():
        return recorder.insert_events(events)


def joined(recorder: SQLAlchemyProcessRecorder, events: Sequence[StoredEvent]) -> Sequence[int] | None:
    """Write like threads whose appends are joined."""
    pack = recorder._writer.pack  # noqa: SLF001 (as the recorder does)
    return recorder.write_batch(recorder.join_batches([pack([event], None) for event in events]))


WAYS: dict[str, tuple[str, Insert, bool]] = {
    "psycopg2": ("psycopg2", alone, False),
    "psycopg2 with tracking": ("psycopg2", with_tracking, False),
    "psycopg2 joined": ("psycopg2", joined, False),
    "psycopg": ("psycopg", alone, True),
    "psycopg with tracking": ("psycopg", with_tracking, True),
    "psycopg joined": ("psycopg", joined, True),
    "psycopg in a session": ("psycopg", in_session, False),
    "pg8000": ("pg8000", alone, False),
}

each_way = pytest.mark.parametrize("way", WAYS)
each_type = pytest.mark.parametrize("originator_id_type", ["uuid", "text"])


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each INSERT of several events, in order: whether it has binary arrays."""
    binary: list[bool] = []

    def watch(cls: type[Executor]) -> None:
        fetch = cls.fetch

        def noting(self: Any, statement: str, parameters: Sequence[Any] = (), **options: Any) -> Any:
            if "unnest" in statement:
                binary.append(sum(isinstance(value, BinaryArray) for value in parameters) == 4)
            return fetch(self, statement, parameters, **options)

        monkeypatch.setattr(cls, "fetch", noting)

    watch(CursorExecutor)
    watch(ConnectionExecutor)
    return binary


@pytest.fixture
def resources() -> Iterator[ExitStack]:
    with ExitStack() as resources:
        yield resources


def as_stored(event: StoredEvent, originator_id: UUID | str) -> StoredEvent:
    return StoredEvent(originator_id, int(event.originator_version), event.topic, bytes(event.state))


shapes: Any = st.sampled_from([bytes, bytearray, memoryview])
contents = st.lists(
    st.tuples(texts, versions, texts, states, shapes), min_size=1, max_size=5, unique_by=lambda content: content[1]
)


@pytest.fixture
def recorder(database: Database, way: str, originator_id_type: OriginatorIDType) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder, the same for all examples, so that its statements are soon prepared."""
    with Applications(database.url(WAYS[way][0]), originator_id_type=originator_id_type) as apps:
        yield apps.recorder("Shop", f"arrays {originator_id_type}")


@each_type
@each_way
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(generated=contents, spread=st.booleans())
def test_events_are_read_back_identical(  # noqa: PLR0917 (fixtures)
    recorder: SQLAlchemyProcessRecorder,
    sent: list[bool],
    way: str,
    originator_id_type: OriginatorIDType,
    generated: list[tuple[str, int, str, bytes | int, Any]],
    spread: bool,
) -> None:
    _, insert, is_binary = WAYS[way]
    start = (recorder.max_notification_id() or 0) + 1
    sent.clear()
    one_id = uuid4() if originator_id_type == "uuid" else f"{uuid4()} {generated[0][0]}"
    events = []
    for text, version, topic, state, shape in generated:
        another = uuid4() if originator_id_type == "uuid" else f"{text}{uuid4()}"
        events.append(StoredEvent(another if spread else one_id, version, topic, shape(bytes(state))))
    ids = insert(recorder, events)
    assert ids == list(range(start, start + len(events)))
    assert sent == ([is_binary] if len(events) > 1 else [])
    expected = [as_stored(event, event.originator_id) for event in events]
    found = recorder.select_notifications(start, len(events))
    assert [StoredEvent(n.originator_id, n.originator_version, n.topic, n.state) for n in found] == expected
    for originator_id in {event.originator_id for event in events}:
        mine = [event for event in expected if event.originator_id == originator_id]
        assert recorder.select_events(originator_id) == sorted(mine, key=lambda event: event.originator_version)


@each_way
@pytest.mark.parametrize("wrong", ["3f0e7c2e-0a8f-4d6c-9d4d-3f4a6a1f7c11", None, 5, b"0123456789abcdef"])
def test_id_of_a_wrong_type_is_refused_before_anything_is_sent(
    database: Database, place: str, sent: list[bool], way: str, wrong: Any
) -> None:
    driver, insert, _ = WAYS[way]
    with Applications(database.url(driver)) as apps:
        recorder = apps.recorder("Shop", place)
        events = [*stored_events(2), StoredEvent(wrong, 1, "topic", b"")]
        with pytest.raises(DataError, match="originator_id"):
            insert(recorder, events)
        assert sent == []
        assert topics(recorder) == []


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
@each_type
def test_users_engine_gets_text(  # noqa: PLR0917 (fixtures)
    database: Database,
    place: str,
    sent: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
    originator_id_type: OriginatorIDType,
) -> None:
    """Its connections are not set up for binary arrays."""
    theirs = sa.create_engine(database.url(driver))
    monkeypatch.setitem(engines, "theirs", theirs)
    with Applications(database.url(driver), originator_id_type=originator_id_type) as apps:
        recorder = apps.recorder("Shop", place, url="", engine_topic=f"{__name__}:their_engine")
        for state in (b"\0'\\", b"x" * 100_000):
            events = stored_events(3, state=state, topic="NULL")
            if originator_id_type == "text":
                events = [as_stored(event, str(event.originator_id)) for event in events]
            with_tracking(recorder, events)
            assert recorder.select_events(events[0].originator_id) == events
            with recorder.transaction():
                others = [f"{state.hex()} {number}" for number in range(2)]
                ids = [uuid4(), uuid4()] if originator_id_type == "uuid" else others
                recorder.insert_events([as_stored(events[0], originator_id) for originator_id in ids])
        assert recorder.datastore.engine is theirs
    assert sent == [False] * 4
    theirs.dispose()


engines: dict[str, sa.Engine] = {}


def their_engine() -> sa.Engine:
    """Found through its topic, which is resolved once."""
    return engines["theirs"]


ENCODINGS = [
    (way, by)
    for way, (driver, _, _) in WAYS.items()
    for by in ("the URL", "the server", "a listener")
    # pg8000 has its own encoding setting; psycopg2 does not notice one set by a statement.
    if not (driver == "pg8000" and by != "the server") and not (driver == "psycopg2" and by == "a listener")
]


@pytest.mark.parametrize(("way", "by"), ENCODINGS)
def test_text_is_unchanged_in_every_connection_encoding(
    database: Database, place: str, resources: ExitStack, way: str, by: str
) -> None:
    driver, insert, _ = WAYS[way]
    with Applications(database.url(driver), originator_id_type="text") as apps:
        plain = apps.recorder("Shop", place)
        url = database.url(driver)
        if by == "the URL":
            url += "?client_encoding=latin1"
        elif by == "the server":
            name = f"latin_{place}"
            with database.engine.connect() as connection:
                connection.exec_driver_sql(
                    f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
                )
            resources.callback(partial(drop, database, name))
            url = sa.make_url(url).set(database=name).render_as_string(hide_password=False)
        datastore = resources.enter_context(
            closing(SQLAlchemyDatastore(url=url, echo=False, originator_id_type="text"))
        )
        if by == "a listener":
            sa.event.listen(datastore.engine, "connect", to_latin1)
        recorder = twin(plain, datastore)
        recorder.create_table()
        events = [StoredEvent("naïve", version, "é", "é".encode()) for version in (1, 2, 3)]
        insert(recorder, events[:2])
        insert(recorder, events[2:])
        assert recorder.select_events("naïve") == events
        if by != "the server":
            assert plain.select_events("naïve") == events


def to_latin1(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("SET client_encoding TO LATIN1")
    cursor.close()
    connection.commit()


def drop(database: Database, name: str) -> None:
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
