"""Read and write whole tables of SQLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventsourcing_sqlalchemy.dialects.protocols import Executor, RowTransfer
from eventsourcing_sqlalchemy.engine_settings import OriginatorIDType
from eventsourcing_sqlalchemy.naming import TableName


class SQLiteRowTransfer(RowTransfer):
    """See :class:`RowTransfer`. The tables have the same form already."""

    begin_snapshot = ("BEGIN",)  # and the first statement that reads takes the snapshot

    def select_originator_id(self, originator_id_type: OriginatorIDType) -> str:
        return "originator_id"

    def originator_id_parameter(self, originator_id_type: OriginatorIDType) -> str:
        return "?"

    def insert(
        self, executor: Executor, table: TableName, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]
    ) -> None:
        placeholders = ", ".join("?" * len(columns))
        executor.run_many(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({placeholders})", rows)
