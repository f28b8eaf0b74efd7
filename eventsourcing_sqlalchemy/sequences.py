"""Sequences that are behind the ids of their tables: find and repair them, for many tables in few queries.

A restore of data alone, logical replication and COPY write rows and leave the sequence where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from eventsourcing.persistence import OperationalError, PersistenceError

from eventsourcing_sqlalchemy.high_water import TABLES_AT_ONCE, chunks

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from eventsourcing_sqlalchemy.dialects.protocols import SequenceBehind
    from eventsourcing_sqlalchemy.naming import TableName

__all__ = ["find_behind", "repair"]


def find_behind(datastore: SQLAlchemyDatastore, tables: Sequence[TableName]) -> list[SequenceBehind]:
    """Return the sequences of these tables of events whose next id is not above the last one in the table.

    Tables that do not exist are left out, and so are those that the role may not read, or their sequences.
    """
    return [counter for some in chunks(tables, TABLES_AT_ONCE) for counter in _find_behind(datastore, some)]


def _find_behind(datastore: SQLAlchemyDatastore, tables: Sequence[TableName]) -> list[SequenceBehind]:
    look = partial(datastore.dialect.id_sequences.behind, tables=tables)
    try:
        return datastore.run(look)
    except OperationalError:
        raise
    except PersistenceError:
        return datastore.run(look)  # one was dropped between being found and being read


def repair(datastore: SQLAlchemyDatastore, counter: SequenceBehind) -> None:
    """Move a sequence to the last id of its table; never moves one back.

    Safe while others write. Raises OperationalError when a transaction holds the writer lock of the table for longer
    than SQLALCHEMY_LOCK_TIMEOUT, and ProgrammingError when the role may not UPDATE the sequence.
    """
    advance = datastore.dialect.id_sequences.advance
    with datastore.writing():
        datastore.run(partial(advance, counter=counter, settings=datastore.settings), f"Sequence {counter.name}")
