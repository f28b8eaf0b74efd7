"""Archives and copies of an application's tables, on every database: equal, proved, and never half there."""

from __future__ import annotations

import os
import resource
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from eventsourcing.persistence import PersistenceError, ProgrammingError, Tracking
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.errors import ArchiveError
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.transfer import (
    Archive,
    append_archive,
    compare,
    copy_tables,
    verify_archive,
    write_archive,
)
from tests.support.administrator import Database
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.places import Place
from tests.support.transfer_stores import Store, store

SCHEMA = Place(database="psycopg2", schema=True)
PREFIX = Place(database="psycopg", prefix=True)
PG8000 = Place(database="pg8000", schema=True, prefix=True)
FILE = Place(database="file")
PLACES = (SCHEMA, PREFIX, PG8000, FILE)

MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Return a function that returns an empty store in a place."""
    with ExitStack() as stack:

        def make(place: Place, *, text_ids: bool = False) -> Store:
            if place.is_server:
                database: Database = request.getfixturevalue("database")
                url = database.url(place.database)
            else:
                url = f"sqlite:///{tmp_path / secrets.token_hex(4)}.db"
            variables = place.variables(url)
            if place.prefix and not place.schema and place.is_server:
                variables["SQLALCHEMY_TABLE_PREFIX"] += secrets.token_hex(4)
            if text_ids:
                variables["ORIGINATOR_ID_TYPE"] = "text"
            return stack.enter_context(store(variables))

        yield make


def archive_of(source: Store, path: Path, **facts: Any) -> Path:
    write_archive(path, source.datastore, [source.tables], facts=facts)
    return path


@pytest.mark.parametrize("text_ids", [False, True])
@pytest.mark.parametrize(("source_place", "target_place"), list(product(PLACES, (SCHEMA, PREFIX, FILE))), ids=str)
def test_copy_equals_the_source(
    source_place: Place, target_place: Place, text_ids: bool, make_store: MakeStore, tmp_path: Path
) -> None:
    """Directly, and through an archive."""
    source = make_store(source_place, text_ids=text_ids)
    source.record(42)
    source.take_snapshots((1, 5), (2, 10))
    copied, restored = make_store(target_place, text_ids=text_ids), make_store(target_place, text_ids=text_ids)
    contents = copy_tables(source.datastore, [source.tables], copied.datastore, [copied.tables])
    assert copied.rows() == source.rows()
    with Archive(archive_of(source, tmp_path / "kennels.db")) as archive:
        assert archive.manifest.applications["Kennels"].contents == contents["Kennels"]
        assert verify_archive(archive).is_success
        tables = archive.manifest.applications["Kennels"].tables
        copy_tables(archive.datastore, [tables], restored.datastore, [restored.tables])
    assert restored.rows() == source.rows()
    for each in (copied, restored):
        assert compare(source.datastore, [source.tables], each.datastore, [each.tables]).agreed == {"Kennels": 42}
        (number,) = each.recorder.insert_events([each.event(99, 1)]) or ()
        assert number == 43, "ids continue after the last event"


def test_ids_keep_their_gaps(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store(SCHEMA)
    source.record(5)
    events = source.tables.specs[0].name if source.tables.specs[0].kind == "events" else source.tables.specs[1].name
    source.datastore.run(lambda executor: executor.fetch(f"DELETE FROM {events} WHERE id IN (2, 5)"))
    source.record(1, start=7)
    assert [note.id for note in source.notes()] == [1, 3, 4, 6]
    with Archive(archive_of(source, tmp_path / "kennels.db")) as archive:
        target = make_store(FILE)
        tables = archive.manifest.applications["Kennels"].tables
        copy_tables(archive.datastore, [tables], target.datastore, [target.tables])
    assert [note.id for note in target.notes()] == [1, 3, 4, 6]


def test_an_application_runs_on_an_archive(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store(SCHEMA)
    source.record(12)
    path = archive_of(source, tmp_path / 'Ünï-cödé "x" 100%.db')
    with store({"SQLALCHEMY_URL": f"sqlite:///{path}"}) as on_archive:
        assert on_archive.rows() == source.rows()
        on_archive.recorder.insert_events([on_archive.event(99, 1)])
    with Archive(path) as archive:
        verification = verify_archive(archive)
    assert (verification.is_success, verification.new) == (True, {"Kennels": (13, 13)})


# -- what is wrong with an archive --


def change(path: Path, statement: str, *parameters: Any) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute(statement, parameters).rowcount > 0
    connection.close()


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("UPDATE kennels_events SET state = x'00' WHERE id = 1042", "Kennels: event 1042 differs"),
        ("UPDATE kennels_events SET topic = 'x' WHERE id = 3", "Kennels: event 3 differs"),
        ("UPDATE kennels_events SET originator_version = 7777 WHERE id = 2042", "Kennels: event 2042 differs"),
        ("DELETE FROM kennels_events WHERE id = 1001", "Kennels: event 1001 is missing"),
        ("DELETE FROM kennels_events WHERE id > 2040", "Kennels: event 2041 is missing"),
        ("UPDATE archive_blocks SET digest = x'00' WHERE number = 2", "Kennels: the record of the events up to 2000"),
        ("UPDATE archive_blocks SET fingerprints = x'00' WHERE number = 3", "Kennels: the record of the events up to"),
        ("DELETE FROM archive_blocks WHERE number = 3", "Kennels: the record of the events up to 2045"),
        ("UPDATE kennels_snapshots SET state = x'00'", "Kennels: the snapshots differ"),
        ("DELETE FROM kennels_tracking", "Kennels: the positions differ"),
    ],
)
def test_first_change_is_named(statement: str, text: str, make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store(FILE)
    source.recorder.insert_events([source.event(1, version, b"state") for version in range(1, 2045)])
    source.recorder.insert_events([source.event(2, 1)], tracking=Tracking("Leader", 7))
    source.take_snapshots((1, 5))
    path = archive_of(source, tmp_path / "kennels.db")
    change(path, statement)
    with Archive(path) as archive:
        verification = verify_archive(archive)
    assert [str(each)[: len(text)] for each in verification.differences][:1] == [text]


def test_an_event_that_was_slipped_in_is_named(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store(FILE)
    source.record(5)
    path = archive_of(source, tmp_path / "kennels.db")
    change(path, "UPDATE kennels_events SET id = 7 WHERE id = 5")
    with Archive(path) as archive:
        verification = verify_archive(archive)
    assert [str(each) for each in verification.differences] == ["Kennels: event 5 is missing"]


def test_an_unreadable_file_is_refused(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store(FILE)
    source.record(200)
    path = archive_of(source, tmp_path / "kennels.db")
    whole = path.read_bytes()
    with pytest.raises(ArchiveError, match="does not exist"):
        Archive(tmp_path / "other.db")
    for content, message in [
        (b"no database at all" * 100, "is not an archive, or is damaged"),
        (b"", "is not an archive, or is damaged"),
        (whole[: len(whole) // 2], "damaged"),
    ]:
        path.write_bytes(content)
        with pytest.raises(PersistenceError, match=r"damaged|malformed"), Archive(path) as archive:
            verify_archive(archive)
        assert message
    path.write_bytes(whole)
    change(path, "UPDATE archive_manifest SET format = 99")
    with pytest.raises(ArchiveError, match="has the format 99, and this version knows formats up to 1"):
        Archive(path)
    change(path, "UPDATE archive_manifest SET format = 1, body = replace(body, '200', '199')")
    with pytest.raises(ArchiveError, match=r"manifest of the archive .* has changed"):
        Archive(path)


def test_a_full_disk_leaves_the_old_archive(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store(SCHEMA)
    source.record(5)
    path = archive_of(source, tmp_path / "kennels.db")
    before = path.read_bytes()
    source.recorder.insert_events([source.event(99, 1, os.urandom(2**20))])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # as Python ignores SIGXFSZ, writing fails
    try:
        with pytest.raises(PersistenceError):
            archive_of(source, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_archive_do_not_meet(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store(FILE)
    source.record(1)
    refused: list[str] = []

    def meanwhile(_: int) -> None:
        with pytest.raises(ArchiveError, match="Another process is writing") as caught:
            archive_of(source, tmp_path / "kennels.db")
        refused.append(str(caught.value))

    write_archive(tmp_path / "kennels.db", source.datastore, [source.tables], progress=meanwhile)
    assert len(refused) == 1
    with Archive(tmp_path / "kennels.db") as archive:
        assert verify_archive(archive).agreed == {"Kennels": 1}


def test_reading_does_not_change_the_file(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store(FILE)
    source.record(1)
    path = archive_of(source, tmp_path / "kennels.db")
    before = path.read_bytes()
    path.chmod(0o444)
    with Archive(path) as archive:
        assert verify_archive(archive).is_success
    assert path.read_bytes() == before


# -- archives over time --


@pytest.mark.parametrize("place", [SCHEMA, FILE], ids=str)
@pytest.mark.parametrize("count", [0, 5, 1000, 1005])
@pytest.mark.parametrize("more", [0, 3, 995, 1000])
def test_a_continued_archive_equals_a_new_one(
    place: Place, count: int, more: int, make_store: MakeStore, tmp_path: Path
) -> None:
    source = make_store(place)
    source.recorder.insert_events([source.event(1, version) for version in range(1, count + 1)])
    path = archive_of(source, tmp_path / "kennels.db")
    source.recorder.insert_events([source.event(2, version) for version in range(1, more + 1)])
    source.take_snapshots((2, 1))  # its event may be missing
    append_archive(path, source.datastore, [source.tables])
    other = archive_of(source, tmp_path / "other.db")
    with Archive(path) as archive, Archive(other) as new:
        assert archive.manifest.applications == new.manifest.applications
        assert list(archive.blocks("Kennels")) == list(new.blocks("Kennels"))
        assert verify_archive(archive).is_success


def test_an_archive_is_continued_from_its_own_store_only(make_store: MakeStore, tmp_path: Path) -> None:
    source, other = make_store(FILE), make_store(FILE)
    source.record(5)
    other.record(3)
    other.recorder.insert_events([other.event(9, version) for version in (1, 2, 3)])
    path = archive_of(source, tmp_path / "kennels.db")
    with pytest.raises(ArchiveError, match="its last events of Kennels, up to 5, are not those of the database"):
        append_archive(path, other.datastore, [other.tables])
    with Archive(path) as archive:
        assert verify_archive(archive).agreed == {"Kennels": 5}
    change(path, "INSERT INTO kennels_events SELECT 6, originator_id, 99, topic, state FROM kennels_events LIMIT 1")
    with pytest.raises(ArchiveError, match="it has 6 events of Kennels, and had 5"):
        append_archive(path, source.datastore, [source.tables])


def test_a_later_archive_extends_an_earlier_one(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store(FILE)
    source.record(5)
    early = archive_of(source, tmp_path / "early.db")
    source.record(3, start=5)
    late = archive_of(source, tmp_path / "late.db")
    with Archive(early) as earlier, Archive(late) as later:
        tables, others = ([each.manifest.applications["Kennels"].tables] for each in (earlier, later))
        extended = compare(later.datastore, others, earlier.datastore, tables)
        assert (extended.is_success, extended.agreed, extended.new) == (True, {"Kennels": 5}, {"Kennels": (6, 8)})
        behind = compare(earlier.datastore, tables, later.datastore, others)
        assert [str(each) for each in behind.differences] == ["Kennels: event 6 is missing"]


# -- copies --


def test_copy_up_to_an_event(make_store: MakeStore) -> None:
    source, target = make_store(SCHEMA), make_store(FILE)
    source.record(30)
    source.take_snapshots((0, 5), (1, 5), (2, 5))
    copy_tables(
        source.datastore,
        [source.tables],
        target.datastore,
        [target.tables],
        until={"Kennels": 15},
        positions={"Kennels": {"Leader": 3}},
    )
    assert [note.id for note in target.notes()] == list(range(1, 16))
    assert [each[:2] for each in target.rows()["snapshots"]] == sorted(
        (str(source.originator_id(number)), 5) for number in (0, 1)
    )
    assert target.recorder.max_tracking_id("Leader") == 3


def test_a_table_with_rows_is_refused(make_store: MakeStore) -> None:
    source, target = make_store(SCHEMA), make_store(PREFIX)
    source.record(3)
    target.record(1)
    with pytest.raises(ProgrammingError, match="is not empty"):
        copy_tables(source.datastore, [source.tables], target.datastore, [target.tables])
    assert len(target.notes()) == 1


@pytest.mark.parametrize("place", [SCHEMA, PREFIX, FILE], ids=str)
def test_archives_beside_writers_are_consistent(
    place: Place, make_store: MakeStore, repeat: Callable[[int], range], tmp_path: Path
) -> None:
    """Each has all events up to its last one, and the position that was written with them."""
    source = make_store(place)
    stop = Event()

    def write(number: int) -> None:
        version = 0
        while not stop.is_set():
            version += 1
            source.recorder.insert_events([source.event(number, version)])

    def follow() -> None:
        position = 0
        while not stop.is_set():
            position += 1
            source.recorder.insert_events([source.event(99, position)], tracking=Tracking("Leader", position))

    threads = [Thread(target=write, args=(number,)) for number in range(3)] + [Thread(target=follow)]
    for thread in threads:
        thread.start()
    try:
        for number in repeat(5):
            with Archive(archive_of(source, tmp_path / f"{number}.db")) as archive:
                assert verify_archive(archive).is_success
                path = archive.path
            with store({"SQLALCHEMY_URL": f"sqlite:///{path}"}) as on_archive:
                notes = on_archive.notes()
                assert [note.id for note in notes] == list(range(1, len(notes) + 1))
                followed = [note for note in notes if note.originator_id == source.originator_id(99)]
                assert on_archive.recorder.max_tracking_id("Leader") == (len(followed) or None)
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)


def test_memory_is_bounded(make_store: MakeStore, tmp_path: Path) -> None:
    """Pages are bounded in bytes, so that large events do not add up."""
    import tracemalloc  # noqa: PLC0415 (slows down)

    source = make_store(FILE)
    for version in range(1, 41):
        source.recorder.insert_events([source.event(1, version, bytes(2**20))])
    tracemalloc.start()
    try:
        archive_of(source, tmp_path / "kennels.db")
        assert tracemalloc.get_traced_memory()[1] < 25 * 2**20
    finally:
        tracemalloc.stop()


def test_an_archive_needs_no_factory_class_of_its_own(tmp_path: Path) -> None:
    """Several applications, one of them without events."""
    url = f"sqlite:///{tmp_path / 'many.db'}"
    tables = []
    with ExitStack() as stack:
        for name in ("Kennels", "School"):
            factory = SQLAlchemyFactory(Environment(name, {"SQLALCHEMY_URL": url}))
            stack.callback(factory.close)
            recorder: Any = factory.application_recorder()
            tables.append((name, recorder.tables))
            datastore = factory.datastore
        from eventsourcing_sqlalchemy.transfer import ApplicationTables  # noqa: PLC0415

        manifest = write_archive(
            tmp_path / "archive.db", datastore, [ApplicationTables(name, tuple(specs)) for name, specs in tables]
        )
    assert {name: each.contents.events for name, each in manifest.applications.items()} == {"Kennels": 0, "School": 0}
    with Archive(tmp_path / "archive.db") as archive:
        assert verify_archive(archive).agreed == {"Kennels": 0, "School": 0}
