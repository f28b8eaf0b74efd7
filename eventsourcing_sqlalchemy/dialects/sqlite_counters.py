"""The table of counters that SQLite keeps for tables with AUTOINCREMENT; it changes with the transactions."""

from __future__ import annotations

from collections.abc import Sequence

from eventsourcing_sqlalchemy.dialects.base import Executor
from eventsourcing_sqlalchemy.dialects.counters import Counters
from eventsourcing_sqlalchemy.naming import TableName


class SQLiteCounters(Counters):
    """Counters, by the names of the tables."""

    epoch_seconds = "((julianday('now') - 2440587.5) * 86400.0)"

    def find(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, str]:
        counted = self.read(executor, [table.name for table in tables])
        return {table: table.name for table in tables if table.name in counted}

    def read(self, executor: Executor, counters: Sequence[str]) -> dict[str, int]:
        # Without any table that has a counter there is no table of them.
        if not executor.fetch("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'"):
            return {}
        rows = executor.fetch(
            "SELECT m.name, coalesce(s.seq, 0) FROM sqlite_master m LEFT JOIN sqlite_sequence s ON s.name = m.name "
            "WHERE m.type = 'table' AND m.sql LIKE '%AUTOINCREMENT%'"
        )
        found: dict[str, int] = {row[0]: row[1] for row in rows}
        return {counter: found[counter] for counter in counters if counter in found}
