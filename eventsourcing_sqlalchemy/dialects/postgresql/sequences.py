"""Find, read and advance the sequences that generate event ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from eventsourcing_sqlalchemy.dialects.conversion import milliseconds
from eventsourcing_sqlalchemy.dialects.protocols import Executor, IdSequences, SequenceBehind
from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.naming import TableName


class PostgreSQLSequences(IdSequences):
    """Sequences, identified by their oids."""

    epoch_seconds = "extract(epoch FROM clock_timestamp())::double precision"

    def find(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, int]:
        return {table: sequence.oid for table, sequence in _sequences(executor, tables).items()}

    def read(self, executor: Executor, id_sequences: Sequence[int]) -> dict[int, int]:
        # Literals, because drivers differ in how they send arrays of integers.
        rows = executor.fetch(_READ.format(",".join(str(int(oid)) for oid in id_sequences)), prepare=False)
        return {int(sequence): int(value or 0) for sequence, value in rows}

    def behind(self, executor: Executor, tables: Sequence[TableName]) -> list[SequenceBehind]:
        found = [(table, each) for table, each in _sequences(executor, tables).items() if each.right is not None]
        if not found:
            return []
        selects = [
            f"SELECT {number}, {each.next_id}, (SELECT max(id) FROM {table}) FROM {each.source} AS s"
            for number, (table, each) in enumerate(found)
        ]
        rows = executor.fetch(" UNION ALL ".join(selects), prepare=False)
        return [
            SequenceBehind(found[number][0], str(found[number][1].name), next_id, last_id)
            for number, next_id, last_id in rows
            if last_id is not None and next_id <= last_id
        ]

    def advance(self, executor: Executor, behind: SequenceBehind, settings: EngineSettings) -> None:
        # An open transaction has taken ids that are not visible yet. Without the writer lock, setval would move the
        # sequence back behind them.
        sequence = _sequences(executor, [behind.table])[behind.table]
        move = (
            f"SELECT setval({sequence.oid}::regclass, t.last_id) "
            f"FROM {sequence.source} AS s, (SELECT max(id) AS last_id FROM {behind.table}) AS t "
            f"WHERE {sequence.next_id} <= t.last_id"
        )
        lock_timeout = milliseconds(settings.lock_timeout)
        executor.run_script(
            [
                f"SELECT set_config('lock_timeout', '{lock_timeout}', true)",
                f"SELECT pg_advisory_xact_lock({behind.table.key})",
                move,
            ]
        )

    def transaction_horizon(self, executor: Executor) -> tuple[int, int]:
        # Not the snapshot's xmax: transactions that are already open may have higher ids.
        ((oldest, newest),) = executor.fetch("SELECT txid_snapshot_xmin(txid_current_snapshot()), txid_current()")
        return int(oldest), int(newest)


def name_of_sequence(executor: Executor, table: TableName) -> str:
    """Return the name of the sequence that generates a table's ids, "" if unknown."""
    sequence = _sequences(executor, [table]).get(table)
    return "" if sequence is None else str(sequence.name)


def is_index_of_ids(executor: Executor, table: TableName, index: str) -> bool:
    """Return whether a table's index covers only its column ``id``."""
    return bool(executor.fetch(_INDEX_OF_IDS, (table.schema, table.name, index), prepare=False))


class _Sequence(NamedTuple):
    oid: int
    name: TableName
    increment: int
    start: int
    right: Literal["SELECT", "USAGE"] | None
    """The role's privilege on it; None also if the role may not read the table."""

    @property
    def source(self) -> str:
        """The FROM item for :attr:`next_id`."""
        return str(self.name) if self.right == "SELECT" else f"(SELECT pg_sequence_last_value({self.oid}) AS value)"

    @property
    def next_id(self) -> str:
        """The SQL expression for the next id."""
        if self.right == "SELECT":
            return f"s.last_value + CASE WHEN s.is_called THEN {self.increment} ELSE 0 END"
        # The value is NULL for a sequence that was restarted and not used since.
        return f"coalesce(s.value + {self.increment}, {self.start})"


def _sequences(executor: Executor, tables: Sequence[TableName]) -> dict[TableName, _Sequence]:
    schemas = [table.schema or "" for table in tables]
    rows = executor.fetch(_FIND, (_array(schemas), _array([table.name for table in tables])), prepare=False)
    return {
        tables[int(index) - 1]: _Sequence(int(oid), TableName(schema, name), int(increment), int(start), right)
        for index, oid, schema, name, increment, start, right in rows
    }


def _array(texts: Sequence[str]) -> str:
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in escaped) + "}"


# Found through the column's default or identity, because the sequence may have been renamed. Tables are looked up by
# schema first, because table names repeat in all schemas of a fleet.
_FIND: Final = """
SELECT wanted.number, s.oid::bigint, sn.nspname, s.relname, q.seqincrement, q.seqstart,
  CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE') OR NOT has_table_privilege(t.oid, 'SELECT') THEN NULL
  WHEN has_schema_privilege(sn.oid, 'USAGE') AND has_sequence_privilege(s.oid, 'SELECT') THEN 'SELECT'
  WHEN has_sequence_privilege(s.oid, 'USAGE') THEN 'USAGE' END
FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS wanted (schema_name, table_name, number)
JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema_name
JOIN pg_catalog.pg_class t ON t.relnamespace = n.oid AND t.relname = wanted.table_name
JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attname = 'id'
CROSS JOIN LATERAL (
  SELECT d.refobjid AS oid
  FROM pg_catalog.pg_attrdef e
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = e.oid
    AND d.refclassid = 'pg_catalog.pg_class'::regclass
  WHERE e.adrelid = t.oid AND e.adnum = a.attnum
  UNION ALL
  SELECT d.objid
  FROM pg_catalog.pg_depend d
  WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = t.oid AND d.refobjsubid = a.attnum
    AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype = 'i'
) AS used
JOIN pg_catalog.pg_class s ON s.oid = used.oid AND s.relkind = 'S'
JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
"""

# A sequence that the role may not read counts as unused.
_READ: Final = """
SELECT oid::bigint, CASE WHEN has_sequence_privilege(oid, 'SELECT, USAGE') THEN pg_sequence_last_value(oid) END
FROM pg_catalog.pg_class WHERE oid IN ({}) AND relkind = 'S'
"""

_INDEX_OF_IDS: Final = """
SELECT 1
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_class t ON t.relnamespace = n.oid
JOIN pg_catalog.pg_index i ON i.indrelid = t.oid
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attname = 'id'
WHERE n.nspname = %s AND t.relname = %s AND c.relname = %s AND i.indkey::text = a.attnum::text
"""
