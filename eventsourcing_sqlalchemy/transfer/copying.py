"""Copy an application's tables from one database to another, with their ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eventsourcing.persistence import DataError, ProgrammingError

from eventsourcing_sqlalchemy import sequences
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.tables import TableSpec
from eventsourcing_sqlalchemy.transfer.digest import Block, Chain, row_sum
from eventsourcing_sqlalchemy.transfer.tables import BEFORE_ALL, ApplicationTables, RowSink, TableReader, TableWriter

__all__ = ["NOWHERE", "Contents", "Progress", "copy_application", "copy_tables", "read_contents"]

Progress = Callable[[int], Any]
"""Called with the number of events since the last call."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What an application's tables contain; equal for equal tables, whatever the databases."""

    events: int
    """Number of events."""
    last_id: int
    """The last event's id, 0 without events."""
    digest: str
    """The digest of all events in id order, hexadecimal."""
    snapshots: int
    snapshots_digest: str
    positions: Mapping[str, int]
    """The positions in the applications that it follows."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "events": self.events,
            "last_id": self.last_id,
            "digest": self.digest,
            "snapshots": self.snapshots,
            "snapshots_digest": self.snapshots_digest,
            "positions": dict(sorted(self.positions.items())),
        }


class _Nowhere(RowSink):
    def write(self, spec: TableSpec, rows: Sequence[Sequence[Any]]) -> None:
        pass


NOWHERE: Final[RowSink] = _Nowhere()
"""Takes rows, and does nothing with them."""


def read_contents(
    reader: TableReader, tables: ApplicationTables, *, until: int | None = None, progress: Progress | None = None
) -> Contents:
    """Return what an application's tables contain, up to an event."""
    return copy_application(reader, tables, NOWHERE, tables, until=until, progress=progress)


def copy_application(
    reader: TableReader,
    source: ApplicationTables,
    sink: RowSink,
    target: ApplicationTables,
    *,
    chain: Chain | None = None,
    after: int = BEFORE_ALL,
    until: int | None = None,
    positions: Mapping[str, int] | None = None,
    on_blocks: Callable[[list[Block]], Any] | None = None,
    progress: Progress | None = None,
) -> Contents:
    """Copy events after one id up to another, all snapshots of the events up to it, and positions.

    ``chain`` stands for the events before; ``positions`` are written instead of those of the source. Every kind of
    table that the source has must be in the target.
    """
    chain = chain or Chain()
    events, events_there = source.spec("events"), target.spec("events")
    if events and events_there:
        for page in reader.events(events, after=after, until=until):
            sink.write(events_there, page)
            blocks = chain.add(page)
            if blocks and on_blocks:
                on_blocks(blocks)
            if progress:
                progress(len(page))
        rest = chain.rest()
        if rest and on_blocks:
            on_blocks([rest])
    count, total = 0, 0
    snapshots, snapshots_there = source.spec("snapshots"), target.spec("snapshots")
    if snapshots and snapshots_there:
        for rows in reader.snapshots(snapshots, events=events, until=until):
            sink.write(snapshots_there, rows)
            count += len(rows)
            total += row_sum(rows)
    tracking, tracking_there = source.spec("tracking"), target.spec("tracking")
    if tracking and tracking_there:
        positions = reader.positions(tracking) if positions is None else positions
        sink.write(tracking_there, sorted(positions.items()))
    number, last_id, digest = chain.head()
    return Contents(number, last_id, digest, count, f"{total % 2**256:064x}", dict(positions or {}))


def copy_tables(
    source: SQLAlchemyDatastore,
    applications: Sequence[ApplicationTables],
    target: SQLAlchemyDatastore,
    others: Sequence[ApplicationTables],
    *,
    until: Mapping[str, int] | None = None,
    positions: Mapping[str, Mapping[str, int]] | None = None,
    progress: Progress | None = None,
) -> dict[str, Contents]:
    """Copy applications into empty tables of another place, in one transaction, and prove that they are equal.

    Returns what was copied, by application. ``others`` are the tables to fill, by the same names. ``until`` holds the
    last event to copy, ``positions`` the positions to write instead of those of the source, by application; 0 copies
    no event. The sequences of ids continue after the last event.

    Raises ProgrammingError if a table is not empty or does not exist, and DataError if what the target returns is not
    what the source contains. Nothing is written then.
    """
    source, target = source.without_scoped_session(), target.without_scoped_session()
    to = {each.name: each for each in others}
    specs = [spec for each in others for spec in each.specs]

    def work(reading: Executor, writing: Executor) -> dict[str, Contents]:
        reader, check = TableReader(reading, source.dialect), TableReader(writing, target.dialect)
        reader.begin()
        target.dialect.begin(writing, target.settings)
        writer = TableWriter(writing, target.dialect, specs)
        for spec in specs:
            if check.count(spec):
                msg = f"The table {spec.name} is not empty. Copy into a new place."
                raise ProgrammingError(msg)
        copied = {}
        for each in applications:
            copied[each.name] = copy_application(
                reader,
                each,
                writer,
                to[each.name],
                until=(until or {}).get(each.name),
                positions=(positions or {}).get(each.name),
                progress=progress,
            )
            if read_contents(check, to[each.name]) != copied[each.name]:
                msg = f"The copy of {each.name} differs from what was read. Nothing was written."
                raise DataError(msg)
        reader.end()
        writing.fetch("COMMIT")
        return copied

    with target.writing():
        copied = source.run(lambda reading: target.run(lambda writing: work(reading, writing)))
    for behind in sequences.find_behind(target, [spec.name for spec in specs if spec.kind == "events"]):
        sequences.repair(target, behind)
    return copied
