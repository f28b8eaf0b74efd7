"""SQLite's id sequences: the transactional table ``sqlite_sequence`` of AUTOINCREMENT tables."""

from __future__ import annotations

from collections.abc import Sequence

from eventsourcing_sqlalchemy.dialects.protocols import Executor, IdSequences, SequenceBehind
from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.naming import TableName


class SQLiteSequences(IdSequences):
    """Sequences, identified by table names."""

    epoch_seconds = "((julianday('now') - 2440587.5) * 86400.0)"

    def find(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, str]:
        counted = self.read(executor, [table.name for table in tables])
        return {table: table.name for table in tables if table.name in counted}

    def read(self, executor: Executor, id_sequences: Sequence[str]) -> dict[str, int]:
        # The table exists only if a table uses AUTOINCREMENT.
        if not executor.fetch("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'"):
            return {}
        rows = executor.fetch(
            "SELECT m.name, coalesce(s.seq, 0) FROM sqlite_master m LEFT JOIN sqlite_sequence s ON s.name = m.name "
            "WHERE m.type = 'table' AND m.sql LIKE '%AUTOINCREMENT%'"
        )
        found: dict[str, int] = {row[0]: row[1] for row in rows}
        return {sequence: found[sequence] for sequence in id_sequences if sequence in found}

    def behind(self, executor: Executor, tables: Sequence[TableName]) -> list[SequenceBehind]:
        counted = self.read(executor, [table.name for table in tables])
        found = [(table, counted[table.name]) for table in tables if table.name in counted]
        if not found:
            return []
        selects = [f"SELECT {number}, max(id) FROM {table}" for number, (table, _) in enumerate(found)]
        return [
            SequenceBehind(found[number][0], "sqlite_sequence", found[number][1] + 1, last_id)
            for number, last_id in executor.fetch(" UNION ALL ".join(selects))
            if last_id is not None and last_id > found[number][1]
        ]

    def advance(self, executor: Executor, behind: SequenceBehind, settings: EngineSettings) -> None:
        name = behind.table.name.replace("'", "''")
        has_row = f"EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = '{name}')"
        last_id = f"(SELECT max(id) FROM {behind.table})"
        executor.run_script(
            [
                f"INSERT INTO sqlite_sequence (name, seq) SELECT '{name}', 0 WHERE NOT {has_row}",
                f"UPDATE sqlite_sequence SET seq = max(seq, {last_id}) WHERE name = '{name}'",
            ]
        )
