"""Read and write all rows of an application's tables, in pages of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast

from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.engine_settings import OriginatorIDType
from eventsourcing_sqlalchemy.tables import TableKind, TableSpec
from eventsourcing_sqlalchemy.transfer import statements
from eventsourcing_sqlalchemy.transfer.digest import EventRow, SnapshotRow

if TYPE_CHECKING:
    from eventsourcing.application import Application

    from eventsourcing_sqlalchemy.recorders.base import SQLAlchemyRecorder

__all__ = ["AFTER_ALL", "BEFORE_ALL", "ApplicationTables", "RowSink", "TableReader", "TableWriter"]

BEFORE_ALL: Final = -(2**63)
"""An id before that of every event."""

AFTER_ALL: Final = 2**63 - 1
"""An id after that of every event."""

_PAGE_ROWS: Final = 1000
_PAGE_BYTES: Final = 8 * 2**20

_COLUMNS: Final[dict[TableKind, tuple[str, ...]]] = {
    "events": ("id", "originator_id", "originator_version", "topic", "state"),
    "snapshots": ("originator_id", "originator_version", "topic", "state"),
    "tracking": ("application_name", "notification_id"),
}


@dataclass(frozen=True, slots=True)
class ApplicationTables:
    """The tables of an application."""

    name: str
    """The application's name."""
    specs: tuple[TableSpec, ...]

    @classmethod
    def of(cls, application: Application[Any]) -> Self:
        """Return the tables of an application: of its recorder, and of its snapshots if it takes any."""
        stores = [application.events, *([application.snapshots] if application.snapshots else [])]
        recorders = [cast("SQLAlchemyRecorder", store.recorder) for store in stores]
        return cls(application.name, tuple(spec for recorder in recorders for spec in recorder.tables))

    def spec(self, kind: TableKind) -> TableSpec | None:
        """Return the table of a kind, or None if the application has none."""
        return next((spec for spec in self.specs if spec.kind == kind), None)

    @property
    def originator_id_type(self) -> OriginatorIDType:
        """The type of its originator ids."""
        return self.specs[0].originator_id_type


class TableReader:
    """Reads rows in the transaction of an executor."""

    def __init__(self, executor: Executor, dialect: Dialect) -> None:
        self._executor = executor
        self._dialect = dialect

    def begin(self) -> None:
        """Begin a transaction in which all reads see the same state of the database."""
        for statement in self._dialect.row_transfer.begin_snapshot:
            self._executor.fetch(statement)

    def end(self) -> None:
        """End the transaction."""
        self._executor.fetch("COMMIT")

    def count(self, spec: TableSpec) -> int:
        """Return the number of rows."""
        statement = statements.count_rows(self._dialect.render(spec.name, parameters=False))
        return int(self._executor.fetch(statement, prepare=False)[0][0])

    def events(self, spec: TableSpec, *, after: int = BEFORE_ALL, until: int | None = None) -> Iterator[list[EventRow]]:
        """Yield events in id order, in pages of at most 1,000 events and 8 MiB, or of one event.

        ``after`` and ``until`` are ids; the first is excluded, the second included.
        """
        table, p = self._dialect.render(spec.name), self._dialect.placeholder
        sizes = statements.select_sizes(table, p)
        page = statements.select_range(table, p, self._originator_id(spec))
        while True:
            found = self._executor.fetch(sizes, (after, _PAGE_ROWS))
            if until is not None:
                found = [row for row in found if row[0] <= until]
            if not found:
                return
            last = found[_fitting([size for _, size in found]) - 1][0]
            rows = self._executor.fetch(page, (after, last))
            yield cast("list[EventRow]", _as_bytes(rows, 1, 4))
            after = last

    def snapshots(
        self, spec: TableSpec, *, events: TableSpec | None = None, until: int | None = None
    ) -> Iterator[list[SnapshotRow]]:
        """Yield snapshots in pages of the same size, in the database's own order.

        With ``until``, only those of events up to this id.
        """
        table, p, transfer = self._dialect.render(spec.name), self._dialect.placeholder, self._dialect.row_transfer
        columns = f"{self._originator_id(spec)}, originator_version, topic, state"
        cut = (self._dialect.render(events.name), (until,)) if events and until is not None else ("", ())
        key: tuple[Any, ...] = ()
        after = ""
        while True:
            sizes, rows = (
                statements.select_snapshots(table, p, selected, after=after, events=cut[0])
                for selected in ("length(state)", columns)
            )
            found = self._executor.fetch(sizes, (*key, *cut[1], _PAGE_ROWS))
            if not found:
                return
            count = _fitting([size for (size,) in found])
            page = cast("list[SnapshotRow]", _as_bytes(self._executor.fetch(rows, (*key, *cut[1], count)), 0, 3))
            yield page
            key, after = page[-1][:2], transfer.originator_id_parameter(spec.originator_id_type)

    def positions(self, spec: TableSpec) -> dict[str, int]:
        """Return the positions in the applications that are followed, by their names."""
        statement = statements.select_positions(self._dialect.render(spec.name, parameters=False))
        return {row[0]: row[1] for row in self._executor.fetch(statement, prepare=False)}

    def _originator_id(self, spec: TableSpec) -> str:
        return self._dialect.row_transfer.select_originator_id(spec.originator_id_type)


def _fitting(sizes: Sequence[int]) -> int:
    """Return how many of the first rows fit into a page, at least one."""
    total = 0
    for count, size in enumerate(sizes):
        total += size
        if total > _PAGE_BYTES and count:
            return count
    return len(sizes)


def _as_bytes(rows: Sequence[Sequence[Any]], *columns: int) -> list[tuple[Any, ...]]:
    """Return rows with bytes where a driver returns another kind of buffer."""
    if not any(isinstance(rows[0][column], memoryview) for column in columns):
        return [tuple(row) for row in rows]
    return [tuple(bytes(value) if isinstance(value, memoryview) else value for value in row) for row in rows]


class RowSink(Protocol):
    """Takes the rows of tables."""

    def write(self, spec: TableSpec, rows: Sequence[Sequence[Any]]) -> None:
        """Take rows of a table."""


class TableWriter(RowSink):
    """Writes rows in the transaction of an executor, into tables that exist."""

    def __init__(self, executor: Executor, dialect: Dialect, specs: Sequence[TableSpec]) -> None:
        self._executor = executor
        self._dialect = dialect
        shapes = dialect.describe(executor, [spec.name for spec in specs])
        self._columns = {
            spec: {column: shapes[spec.name].columns[column] for column in _COLUMNS[spec.kind]} for spec in specs
        }

    def write(self, spec: TableSpec, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows into a table."""
        if rows:
            self._dialect.row_transfer.insert(self._executor, spec.name, self._columns[spec], rows)
