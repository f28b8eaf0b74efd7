"""Replace tables on PostgreSQL: a space is a schema, and objects move from one schema to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from eventsourcing_sqlalchemy.dialects.conversion import milliseconds
from eventsourcing_sqlalchemy.dialects.protocols import Executor, TableReplacer
from eventsourcing_sqlalchemy.naming import TableName, quote


class PostgreSQLReplacer(TableReplacer):
    """Moves relations, enum types and domains. A statement that waits for a moved table continues with the new one."""

    def settings_of(self, space: str, schema: str | None, prefix: str) -> tuple[str | None, str]:
        return space, prefix

    def names_in(self, executor: Executor, space: str) -> list[str]:
        return [name for _, name in executor.fetch(_OBJECTS, (space, space), prepare=False)]

    def dependents(self, executor: Executor, schema: str | None, names: Sequence[str]) -> list[str]:
        parameters = (schema, list(names))
        return sorted(what for (what,) in executor.fetch(_DEPENDENTS, parameters * 2, prepare=False))

    def lock(self, executor: Executor, tables: Sequence[TableName], timeout: float, *, reads: bool) -> None:
        mode = "ACCESS EXCLUSIVE" if reads else "SHARE ROW EXCLUSIVE"
        executor.fetch(f"SELECT set_config('lock_timeout', '{milliseconds(timeout)}', true)")
        executor.fetch(f"LOCK TABLE {', '.join(map(str, tables))} IN {mode} MODE")

    def replace(
        self, executor: Executor, schema: str | None, names: Sequence[str], *, by: str, to: str, is_default: bool
    ) -> None:
        assert schema is not None
        grants = executor.fetch(_GRANTS, (by, schema), prepare=False)
        executor.fetch(f"CREATE SCHEMA {quote(to)}")
        wanted = set(names)
        for kind, name in executor.fetch(_OBJECTS, (schema, schema), prepare=False):
            if name in wanted:
                executor.fetch(_move(kind, TableName(schema, name), to))
        for name, table, column in executor.fetch(_INDEXES, (by,), prepare=False):
            # SQLAlchemy's default name of an index contains the schema.
            if name == _default_name(by, table, column):
                new_name = quote(_default_name(None if is_default else schema, table, column))
                executor.fetch(f"ALTER INDEX {TableName(by, name)} RENAME TO {new_name}")
        for kind, name in executor.fetch(_OBJECTS, (by, by), prepare=False):
            executor.fetch(_move(kind, TableName(by, name), schema))
        # Fails if an object is left, such as a function, instead of dropping what other objects need.
        executor.fetch(f"DROP SCHEMA {quote(by)}")
        for privilege, kind, name, grantee, option in grants:
            executor.fetch(f"GRANT {privilege} ON {kind} {TableName(schema, name)} TO {grantee}{option}")

    def drop(self, executor: Executor, space: str) -> None:
        executor.fetch(f"DROP SCHEMA IF EXISTS {quote(space)} CASCADE")


def _move(kind: str, name: TableName, schema: str) -> str:
    return f"ALTER {kind} {name} SET SCHEMA {quote(schema)}"


def _default_name(schema: str | None, table: str, column: str) -> str:
    """Return SQLAlchemy's name of an index on a column, shortened as SQLAlchemy shortens it."""
    columns = sa.Table(table, sa.MetaData(schema=schema), sa.Column(column, sa.Integer)).c
    dialect: Any = postgresql.dialect
    name: str = dialect().identifier_preparer.format_index(sa.Index(None, columns[column]))
    return name.strip('"').replace('""', '"')


# Sequences that a column owns move with its table.
_OBJECTS: Final = """
SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
  WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND NOT c.relispartition
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend o WHERE c.relkind = 'S' AND o.classid = 'pg_catalog.pg_class'::regclass
    AND o.objid = c.oid AND o.deptype IN ('a', 'i')
  )
UNION ALL
SELECT CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, t.typname
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname = %s AND t.typtype IN ('e', 'd')
"""

# Indexes with their tables and first columns.
_INDEXES: Final = """
SELECT c.relname, t.relname, a.attname
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace AND n.nspname = %s
JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
"""

# Views, foreign keys and columns outside.
_DEPENDENTS: Final = """
WITH relations AS (
  SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %s AND c.relname = ANY (%s)
), types AS (
  SELECT t.oid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  WHERE n.nspname = %s AND t.typname = ANY (%s) AND t.typtype IN ('e', 'd')
)
SELECT 'the view ' || r.ev_class::regclass::text
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.ev_class NOT IN (SELECT oid FROM relations)
WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
  AND d.refobjid IN (SELECT oid FROM relations)
UNION
SELECT 'a foreign key of ' || k.conrelid::regclass::text
FROM pg_catalog.pg_constraint k
WHERE k.contype = 'f' AND k.confrelid IN (SELECT oid FROM relations)
  AND k.conrelid NOT IN (SELECT oid FROM relations)
UNION
SELECT 'a column of ' || a.attrelid::regclass::text
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.objid AND a.attnum = d.objsubid AND NOT a.attisdropped
WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_type'::regclass
  AND d.refobjid IN (SELECT oid FROM types) AND d.objsubid > 0
  AND a.attrelid NOT IN (SELECT oid FROM relations)
"""

# What others than the owner may do with the old objects that have a successor. Without a percent sign: drivers differ.
_GRANTS: Final = """
SELECT a.privilege_type, CASE o.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, o.relname,
  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM pg_catalog.pg_class s
JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace AND sn.nspname = %s
JOIN pg_catalog.pg_class o ON o.relname = s.relname AND o.relkind = s.relkind
JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace AND n.nspname = %s
CROSS JOIN LATERAL pg_catalog.aclexplode(o.relacl) a
WHERE o.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND a.grantee <> o.relowner
"""
