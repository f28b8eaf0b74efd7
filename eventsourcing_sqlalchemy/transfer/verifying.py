"""Prove that an archive is as it was written, and find the first event in which two stores differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from eventsourcing.persistence import ProgrammingError

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.transfer.archive import Archive
from eventsourcing_sqlalchemy.transfer.copying import NOWHERE, Contents, Progress, copy_application
from eventsourcing_sqlalchemy.transfer.digest import (
    DIGEST_BYTES,
    FINGERPRINT_BYTES,
    Block,
    event_digest,
    fingerprints_of,
)
from eventsourcing_sqlalchemy.transfer.tables import AFTER_ALL, BEFORE_ALL, ApplicationTables, TableReader

__all__ = ["Difference", "Verification", "compare", "verify_archive"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first event of an application in which a store is not as it should be."""

    application: str
    event_id: int
    """The event's id; 0 if the difference is not in an event."""
    kind: Literal["differs", "missing", "too many", "record", "snapshots", "positions"]
    """``record`` means that the events are as they were, and the archive's record of them is not."""

    def __str__(self) -> str:
        if self.kind in ("snapshots", "positions"):
            return f"{self.application}: the {self.kind} differ"
        if self.kind == "record":
            return f"{self.application}: the record of the events up to {self.event_id} is damaged, not the events"
        verb = {"differs": "differs", "missing": "is missing", "too many": "is one too many"}[self.kind]
        return f"{self.application}: event {self.event_id} {verb}"


@dataclass(frozen=True, slots=True)
class Verification:
    """How far a store is as it should be."""

    agreed: Mapping[str, int]
    """The number of events that agree, by application, from the first one."""
    new: Mapping[str, Sequence[int]]
    """The first and the last id of the events that were added since, by application; only those with such events."""
    differences: Sequence[Difference]
    """At most one of each kind for an application."""

    @property
    def is_success(self) -> bool:
        """Whether nothing differs. New events are no difference."""
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "ok": self.is_success,
            "agreed": dict(self.agreed),
            "new": {name: list(ids) for name, ids in self.new.items()},
            "differences": [
                {"application": each.application, "event_id": each.event_id, "kind": each.kind, "text": str(each)}
                for each in self.differences
            ],
        }


def verify_archive(archive: Archive, *, progress: Progress | None = None) -> Verification:
    """Recompute the digests of everything in an archive."""
    agreed: dict[str, int] = {}
    new: dict[str, Sequence[int]] = {}
    differences: list[Difference] = []

    def verify(executor: Executor) -> None:
        reader = TableReader(executor, archive.datastore.dialect)
        reader.begin()
        for name, application in archive.manifest.applications.items():
            tables, contents = application.tables, application.contents
            agreed[name], found = _verify_events(archive, reader, tables, contents, progress)
            if found is not None:
                differences.append(found)
                continue
            added = _ends(reader, tables, contents.last_id)
            if added:
                new[name] = added
            until = contents.last_id if added else None
            differences.extend(_compare_rest(name, contents, _read_rest(reader, tables, until)))
        reader.end()

    archive.datastore.run(verify, str(archive.path))
    return Verification(agreed, new, differences)


def _verify_events(
    archive: Archive, reader: TableReader, tables: ApplicationTables, contents: Contents, progress: Progress | None
) -> tuple[int, Difference | None]:
    spec = tables.spec("events")
    agreed, digest, after = 0, bytes(DIGEST_BYTES), BEFORE_ALL
    for block in archive.blocks(tables.name) if spec else ():
        assert spec is not None
        events = [
            (row[0], event_digest(row))
            for page in reader.events(spec, after=after, until=block.last_id)
            for row in page
        ]
        if sha256(digest + b"".join(each for _, each in events)).digest() != block.digest:
            same, found = _first_difference(tables.name, events, block)
            return agreed + same, found
        if fingerprints_of(events) != block.fingerprints:
            return agreed + block.count, Difference(tables.name, block.last_id, "record")
        agreed, digest, after = agreed + block.count, block.digest, block.last_id
        if progress:
            progress(block.count)
    if (agreed, digest.hex()) != (contents.events, contents.digest):
        return agreed, Difference(tables.name, contents.last_id, "record")
    return agreed, None


def _first_difference(application: str, events: Sequence[tuple[int, bytes]], block: Block) -> tuple[int, Difference]:
    """Return how many events of a block are as recorded, and the first one that is not."""
    recorded, found = block.events(), dict(events)
    for count, number in enumerate(sorted({*recorded, *found})):
        if number not in found:
            return count, Difference(application, number, "missing")
        if number not in recorded:
            return count, Difference(application, number, "too many")
        if found[number][:FINGERPRINT_BYTES] != recorded[number]:
            return count, Difference(application, number, "differs")
    return len(events), Difference(application, block.last_id, "record")


def compare(
    store: SQLAlchemyDatastore,
    applications: Sequence[ApplicationTables],
    against: SQLAlchemyDatastore,
    others: Sequence[ApplicationTables],
    *,
    progress: Progress | None = None,
) -> Verification:
    """Compare the applications of a store with those of the same names in another one, event by event.

    Events of ``store`` after the last one of ``against`` are new. Raises ProgrammingError for an application that is
    not in ``others``.
    """
    there = {each.name: each for each in others}
    agreed: dict[str, int] = {}
    new: dict[str, Sequence[int]] = {}
    differences: list[Difference] = []

    def work(executor: Executor, other: Executor) -> None:
        reader, other_reader = TableReader(executor, store.dialect), TableReader(other, against.dialect)
        reader.begin()
        other_reader.begin()
        for tables in applications:
            name = tables.name
            if name not in there:
                msg = f"The application {name} is in one of the two stores only."
                raise ProgrammingError(msg)
            agreed[name], last_id, found = _compare_events(
                name, _digests(reader, tables, progress), _digests(other_reader, there[name], None)
            )
            if found is not None:
                differences.append(found)
                continue
            added = _ends(reader, tables, last_id)
            if added:
                new[name] = added
            rest = _read_rest(other_reader, there[name], None)
            found_rest = _read_rest(reader, tables, last_id if added else None)
            differences.extend(_compare_rest(name, rest, found_rest))
        reader.end()
        other_reader.end()

    store.run(lambda executor: against.run(lambda other: work(executor, other)))
    return Verification(agreed, new, differences)


def _digests(reader: TableReader, tables: ApplicationTables, progress: Progress | None) -> Iterator[tuple[int, bytes]]:
    spec = tables.spec("events")
    for page in reader.events(spec) if spec else ():
        for row in page:
            yield row[0], event_digest(row)
        if progress:
            progress(len(page))


def _compare_events(
    application: str, events: Iterator[tuple[int, bytes]], others: Iterator[tuple[int, bytes]]
) -> tuple[int, int, Difference | None]:
    """Return how many events agree, the id of the last of them, and the first difference."""
    count, last_id = 0, BEFORE_ALL
    for other in others:
        event = next(events, None)
        if event != other:
            if event is None or event[0] > other[0]:
                return count, last_id, Difference(application, other[0], "missing")
            kind: Literal["differs", "too many"] = "differs" if event[0] == other[0] else "too many"
            return count, last_id, Difference(application, event[0], kind)
        count, last_id = count + 1, event[0]
    return count, last_id, None


def _ends(reader: TableReader, tables: ApplicationTables, after: int) -> Sequence[int]:
    """Return the first and the last id after an id, or nothing."""
    spec = tables.spec("events")
    first = last = None
    for page in reader.events(spec, after=after) if spec else ():
        first, last = first or page[0][0], page[-1][0]
    return () if first is None or last is None else (first, last)


def _read_rest(reader: TableReader, tables: ApplicationTables, until: int | None) -> Contents:
    """Return the snapshots, with ``until`` those of events up to an id, and the positions."""
    return copy_application(reader, tables, NOWHERE, tables, after=AFTER_ALL, until=until)


def _compare_rest(application: str, expected: Contents, found: Contents) -> Iterator[Difference]:
    snapshots = found.snapshots, found.snapshots_digest
    if snapshots != (expected.snapshots, expected.snapshots_digest):
        yield Difference(application, 0, "snapshots")
    # A follower may have gone on since.
    if any(found.positions.get(name, -1) < position for name, position in expected.positions.items()):
        yield Difference(application, 0, "positions")
