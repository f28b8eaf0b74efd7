"""High-water marks of many tables in few queries: last event ids, recorded positions, and events since a mark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from eventsourcing.persistence import OperationalError, PersistenceError

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.naming import TableName

__all__ = [
    "TABLES_AT_ONCE",
    "Growth",
    "HighWaterMarks",
    "chunks",
    "read_growth",
    "read_last_ids",
    "read_positions",
    "run_despite_drops",
]

_T = TypeVar("_T")

# A sequence that is read stays locked until the transaction ends, in a lock table that all clients share.
_SEQUENCES_AT_ONCE: Final = 1000
# More tables in one query take the server more time for each, and much memory.
TABLES_AT_ONCE: Final = 100


class HighWaterMarks:
    """Reads the last ids of many event tables. For one thread.

    It caches the id sequences of the tables of its last call. A table that does not exist has no last id.
    """

    def __init__(self, datastore: SQLAlchemyDatastore) -> None:
        self._datastore = datastore
        self._sequences: dict[TableName, Any] = {}

    def read(self, tables: Sequence[TableName]) -> dict[TableName, int]:
        """Return the last id of each existing table, 0 for one without events.

        It is never behind the ids that can be read, and may be ahead: see :class:`IdSequences`.
        """
        find = self._datastore.dialect.id_sequences.find
        wanted = set(tables)
        self._sequences = {table: sequence for table, sequence in self._sequences.items() if table in wanted}
        unknown = [table for table in tables if table not in self._sequences]
        for some in chunks(unknown, _SEQUENCES_AT_ONCE):
            self._sequences.update(self._datastore.run(partial(find, tables=some)))
        last: dict[TableName, int] = {}
        for some in chunks([table for table in tables if table in self._sequences], _SEQUENCES_AT_ONCE):
            counts = self._count([self._sequences[table] for table in some])
            for table in some:
                value = counts.get(self._sequences[table])
                if value is None:
                    del self._sequences[table]  # dropped, and perhaps created again
                else:
                    last[table] = value
        others = [table for table in tables if table not in self._sequences]
        return last | read_last_ids(self._datastore, others)

    def _count(self, id_sequences: Sequence[Any]) -> dict[Any, int]:
        read = self._datastore.dialect.id_sequences.read
        return run_despite_drops(self._datastore, partial(read, id_sequences=id_sequences))

    def transaction_horizon(self) -> tuple[int, int] | None:
        """Return the transaction horizon; see :meth:`IdSequences.transaction_horizon`."""
        return self._datastore.run(self._datastore.dialect.id_sequences.transaction_horizon)


def run_despite_drops(datastore: SQLAlchemyDatastore, work: Callable[[Executor], _T]) -> _T:
    """Run work that finds tables or sequences and then reads them; once more if one was dropped in between."""
    try:
        return datastore.run(work)
    except OperationalError:
        raise
    except PersistenceError:
        return datastore.run(work)


def read_last_ids(datastore: SQLAlchemyDatastore, tables: Sequence[TableName]) -> dict[TableName, int]:
    """Return the last id that can be read now for each existing table, 0 for none.

    These are exact; :class:`HighWaterMarks` is faster.
    """
    return _in_chunks(datastore, tables, _read_last_ids)


class Growth(NamedTuple):
    """The events of a table after an id."""

    events: int
    bytes: int
    """Total size of their states."""
    last_id: int


def read_growth(datastore: SQLAlchemyDatastore, after: Mapping[TableName, int]) -> dict[TableName, Growth]:
    """Return the events of each existing table with ids above the given one, by a scan of these events.

    Events of transactions that are open are not among them, and will have ids above ``last_id``.
    """
    return _in_chunks(datastore, list(after), partial(_read_growth, after=after))


def read_positions(datastore: SQLAlchemyDatastore, tables: Sequence[TableName]) -> dict[TableName, dict[str, int]]:
    """Return the positions in each existing tracking table, by the name of the followed application."""
    return _in_chunks(datastore, tables, _read_positions)


def _read_last_ids(datastore: SQLAlchemyDatastore, tables: Sequence[TableName]) -> dict[TableName, int]:
    rendered = [datastore.dialect.render(table, parameters=False) for table in tables]
    rows = _union(datastore, [f"SELECT {number}, max(id) FROM {name}" for number, name in enumerate(rendered)])
    return {tables[number]: last or 0 for number, last in rows}


def _read_growth(
    datastore: SQLAlchemyDatastore, tables: Sequence[TableName], after: Mapping[TableName, int]
) -> dict[TableName, Growth]:
    rendered = [datastore.dialect.render(table, parameters=False) for table in tables]
    columns = "count(*), coalesce(sum(length(state)), 0), max(id)"
    selects = [
        f"SELECT {number}, {columns} FROM {name} WHERE id > {after[tables[number]]:d}"
        for number, name in enumerate(rendered)
    ]
    rows = _union(datastore, selects)
    return {
        tables[number]: Growth(events, int(size), after[tables[number]] if last is None else last)
        for number, events, size, last in rows
    }


def _read_positions(datastore: SQLAlchemyDatastore, tables: Sequence[TableName]) -> dict[TableName, dict[str, int]]:
    rendered = [datastore.dialect.render(table, parameters=False) for table in tables]
    columns = "application_name, notification_id"
    rows = _union(datastore, [f"SELECT {number}, {columns} FROM {name}" for number, name in enumerate(rendered)])
    positions: dict[TableName, dict[str, int]] = {table: {} for table in tables}
    for number, application, position in rows:
        positions[tables[number]][application] = position
    return positions


def _union(datastore: SQLAlchemyDatastore, selects: Sequence[str]) -> Sequence[Sequence[Any]]:
    statement = " UNION ALL ".join(selects)

    def work(executor: Executor) -> Sequence[Sequence[Any]]:
        return executor.fetch(statement, prepare=False)

    return datastore.run(work)


def _in_chunks(datastore: SQLAlchemyDatastore, tables: Sequence[TableName], read: Any) -> dict[TableName, Any]:
    result: dict[TableName, Any] = {}
    for some in chunks(tables, TABLES_AT_ONCE):
        result.update(_read_existing(datastore, some, read))
    return result


def _read_existing(datastore: SQLAlchemyDatastore, tables: Sequence[TableName], read: Any) -> dict[TableName, Any]:
    try:
        return dict(read(datastore, tables))
    except OperationalError:
        raise
    except PersistenceError:
        # One of them does not exist, and the whole query fails.
        if len(tables) == 1:
            return {}
        half = len(tables) // 2
        return {
            **_read_existing(datastore, tables[:half], read),
            **_read_existing(datastore, tables[half:], read),
        }


def chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Yield the items in chunks of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
