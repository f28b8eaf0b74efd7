"""The sequences that give out the ids of tables: which they are, and how far they are."""

from __future__ import annotations

from collections.abc import Sequence

from eventsourcing_sqlalchemy.dialects.base import Executor
from eventsourcing_sqlalchemy.dialects.counters import Counters
from eventsourcing_sqlalchemy.naming import TableName


class PostgreSQLCounters(Counters):
    """Sequences, by their numbers."""

    epoch_seconds = "extract(epoch FROM clock_timestamp())::double precision"

    def find(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, int]:
        schemas = [table.schema or "" for table in tables]
        rows = executor.fetch(_FIND, (_array(schemas), _array([table.name for table in tables])), prepare=False)
        return {tables[int(index) - 1]: int(sequence) for index, sequence in rows}

    def read(self, executor: Executor, counters: Sequence[int]) -> dict[int, int]:
        # Numbers only, so they can stand in the statement; drivers differ in how they send arrays of them.
        rows = executor.fetch(_READ.format(",".join(str(int(counter)) for counter in counters)), prepare=False)
        return {int(sequence): int(value or 0) for sequence, value in rows}

    def horizon(self, executor: Executor) -> tuple[int, int]:
        # The end of a snapshot would not do: it is behind the last transaction that ended, and others that have begun
        # are after it.
        ((oldest, newest),) = executor.fetch("SELECT txid_snapshot_xmin(txid_current_snapshot()), txid_current()")
        return int(oldest), int(newest)


def _array(texts: Sequence[str]) -> str:
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in escaped) + "}"


# By the column, not by the name: a sequence that was made with its table is called so only at first. The names are
# looked up with the schema first, which in a fleet is what tells tables apart.
_FIND = """
SELECT wanted.number, d.objid::bigint
FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS wanted (schema_name, table_name, number)
JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema_name
JOIN pg_catalog.pg_class t ON t.relnamespace = n.oid AND t.relname = wanted.table_name
JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attname = 'id'
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = t.oid
  AND d.refobjsubid = a.attnum AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i')
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
"""

# What a role may not read counts as not begun.
_READ = """
SELECT oid::bigint, CASE WHEN has_sequence_privilege(oid, 'SELECT, USAGE') THEN pg_sequence_last_value(oid) END
FROM pg_catalog.pg_class WHERE oid IN ({}) AND relkind = 'S'
"""
