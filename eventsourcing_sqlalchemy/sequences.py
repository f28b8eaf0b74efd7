"""Find and repair sequences that are behind their tables' ids, for many tables in few queries.

A data-only restore, logical replication and COPY insert rows without advancing the sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import SequenceBehind
from eventsourcing_sqlalchemy.high_water import TABLES_AT_ONCE, chunks, run_despite_drops
from eventsourcing_sqlalchemy.naming import TableName

__all__ = ["find_behind", "repair"]


def find_behind(datastore: SQLAlchemyDatastore, tables: Sequence[TableName]) -> list[SequenceBehind]:
    """Return the sequences of these events tables whose next id is not above the table's last id.

    Tables that do not exist are skipped, and so are tables and sequences that the role may not read.
    """
    find = datastore.dialect.id_sequences.behind
    return [
        behind
        for chunk in chunks(tables, TABLES_AT_ONCE)
        for behind in run_despite_drops(datastore, partial(find, tables=chunk))
    ]


def repair(datastore: SQLAlchemyDatastore, behind: SequenceBehind) -> None:
    """Advance a sequence to its table's last id; never moves it back.

    Safe during concurrent writes. Raises OperationalError if another transaction holds the table's writer lock for
    longer than SQLALCHEMY_LOCK_TIMEOUT, and ProgrammingError if the role may not UPDATE the sequence.
    """
    advance = datastore.dialect.id_sequences.advance
    with datastore.writing():
        datastore.run(partial(advance, behind=behind, settings=datastore.settings), f"Sequence {behind.name}")
