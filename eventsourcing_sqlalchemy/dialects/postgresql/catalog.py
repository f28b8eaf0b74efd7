"""Read PostgreSQL's catalog, and create tables: existing tables, their shapes, missing rights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from eventsourcing.persistence import ProgrammingError
from sqlalchemy.dialects import postgresql

from eventsourcing_sqlalchemy.dialects.conversion import milliseconds
from eventsourcing_sqlalchemy.dialects.protocols import Executor, RelationId, RelationKind, Right
from eventsourcing_sqlalchemy.errors import sqlstate
from eventsourcing_sqlalchemy.naming import TableName, quote
from eventsourcing_sqlalchemy.tables import TableShape, TableSpec

INSUFFICIENT_PRIVILEGE = "42501"


def describe(executor: Executor, tables: Sequence[TableName]) -> dict[TableName, TableShape]:
    """Return the shapes of the tables that exist."""
    # Filter by schema first: table names repeat in all schemas of a fleet, so a plan that starts with them slows down
    # with each application.
    conditions, parameters = [], []
    for schema in dict.fromkeys(table.schema or "" for table in tables):
        names = [table.name for table in tables if (table.schema or "") == schema]
        conditions.append(
            "c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) "
            f"AND c.relname IN ({', '.join(['%s'] * len(names))})"
        )
        parameters += [schema, *names]
    statement = _DESCRIBE.format(conditions=f"({' OR '.join(conditions)})")
    wanted = set(tables)
    # A generic plan would read the whole catalog.
    found = _shapes(executor.fetch(statement, parameters * 2, prepare=False))
    return {table: shape for table, shape in found.items() if table in wanted}


def describe_all(executor: Executor) -> dict[TableName, TableShape]:
    """Return the shapes of all tables whose names end like an application's."""
    conditions = "c.relname ~ '(events|snapshots|tracking)$'"
    return _shapes(executor.fetch(_DESCRIBE.format(conditions=conditions), prepare=False))


def _shapes(rows: Sequence[Sequence[str]]) -> dict[TableName, TableShape]:
    shapes: dict[TableName, TableShape] = {}
    for schema, name, column, column_type in rows:
        shape = shapes.setdefault(TableName(schema, name), TableShape())
        if column_type is None:
            shape.unique.append(frozenset(column.split(",")))
        else:
            shape.columns[column] = column_type
    return shapes


def schemas(executor: Executor, prefix: str) -> list[str]:
    """Return the schemas whose names start with a prefix."""
    statement = "SELECT nspname FROM pg_catalog.pg_namespace WHERE pg_catalog.starts_with(nspname::text, %s)"
    return [name for (name,) in executor.fetch(statement, (prefix,), prepare=False)]


def relations(executor: Executor, schema: str, prefix: str) -> list[tuple[RelationKind, str]]:
    """Return a schema's tables, views and unowned sequences whose names start with a prefix."""
    found = _fetch_relations(executor, "c.relkind::text, c.relname", schema, prefix)
    return [(_KINDS[kind], name) for kind, name in found]


def relation_ids(executor: Executor, schema: str, prefix: str) -> dict[str, RelationId]:
    """Return the ids of the same relations, by name, within a transaction."""
    # A transaction keeps an exclusive lock on what it has created until it ends, also after a savepoint. What others
    # have committed in the meantime is visible too, but not locked.
    is_locked = """c.oid IN (
  SELECT l.relation FROM pg_catalog.pg_locks l
  WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted
)"""
    found = _fetch_relations(executor, f"c.relname, c.oid::bigint, {is_locked}", schema, prefix)
    return {name: RelationId(oid, ours) for name, oid, ours in found}


def _fetch_relations(executor: Executor, columns: str, schema: str, prefix: str) -> Sequence[Sequence[Any]]:
    # Both queries use an index, by name or by dependency on the schema: a scan of a large fleet's relations is slow.
    if prefix:
        upper = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        return executor.fetch(_BY_NAME.format(columns=columns), (schema, prefix, upper), prepare=False)
    return executor.fetch(_BY_SCHEMA.format(columns=columns), (schema,), prepare=False)


_KINDS: Final[dict[str, RelationKind]] = {
    "r": "table",
    "p": "table",
    "f": "foreign table",
    "v": "view",
    "m": "materialized view",
    "S": "sequence",
}


def create(executor: Executor, specs: Sequence[TableSpec], lock_timeout: float) -> None:
    """Create missing tables and schemas in one transaction. ``lock_timeout`` is in seconds."""
    schemas = list(dict.fromkeys(spec.name.schema or "public" for spec in specs))
    # IF NOT EXISTS requires the CREATE privilege on the database even if the schema exists, so skip existing schemas.
    placeholders = ", ".join(["%s"] * len(schemas))
    query = f"SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname IN ({placeholders})"
    existing = {row[0] for row in executor.fetch(query, schemas, prepare=False)}
    # Without these locks, two processes that find nothing would both create, and one would fail on a unique index of
    # the catalog. They block others that create tables in these schemas until the commit, and are taken in key order to
    # avoid deadlock.
    statements = [f"SELECT set_config('lock_timeout', '{milliseconds(lock_timeout)}', true)"]
    statements += [f"SELECT pg_advisory_xact_lock({key})" for key in sorted(TableName(s, "").key for s in schemas)]
    statements += [f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}" for schema in schemas if schema not in existing]
    for spec in specs:
        statements += spec.ddl(postgresql.dialect)
    try:
        executor.run_script(statements)
    except Exception as error:
        if sqlstate(error) != INSUFFICIENT_PRIVILEGE:
            raise
        schema = next((schema for schema in schemas if schema not in existing), schemas[0])
        raise ProgrammingError(_missing_privilege(executor, schema, exists=schema in existing)) from error


def missing_rights(executor: Executor, schemas: Sequence[str | None]) -> dict[Right, str]:
    """Return the rights that the role lacks in this database and on the schemas' tables, with the GRANT statements."""
    ((database, role, may_create),) = executor.fetch(
        "SELECT quote_ident(current_database()), quote_ident(current_user), "
        "has_database_privilege(current_database(), 'CREATE')"
    )
    missing: dict[Right, str] = {} if may_create else {"create": f"GRANT CREATE ON DATABASE {database} TO {role};"}
    names = list(dict.fromkeys(schema or "public" for schema in schemas))
    for right, schema, count in executor.fetch(_MISSING_RIGHTS, (names,), prepare=False) if names else ():
        more = f" The same for {count - 1} other schemas." if count > 1 else ""
        privilege = {"read": "SELECT", "write": "SELECT, INSERT, UPDATE"}[right]
        missing[right] = (
            f"GRANT USAGE ON SCHEMA {schema} TO {role}; "
            f"GRANT {privilege} ON ALL TABLES IN SCHEMA {schema} TO {role};{more}"
        )
    return missing


def _missing_privilege(executor: Executor, schema: str, *, exists: bool) -> str:
    try:
        ((name, database, role, written_schema),) = executor.fetch(
            "SELECT current_user, quote_ident(current_database()), quote_ident(current_user), quote_ident(%s)",
            (schema,),
        )
        subject = f"role '{name}'"
    except Exception:  # noqa: BLE001 (a failed transaction accepts no queries)
        subject, database, role, written_schema = "the role of this connection", "this database", "it", quote(schema)
    if exists:
        return (
            f"{subject} may not create tables in schema '{schema}'. Run as an administrator: "
            f"GRANT USAGE, CREATE ON SCHEMA {written_schema} TO {role};  "
            "or create them beforehand and set CREATE_TABLE=no"
        )
    return (
        f"{subject} may not create schema '{schema}'. Run as an administrator: "
        f"GRANT CREATE ON DATABASE {database} TO {role};  or create it beforehand and set CREATE_TABLE=no"
    )


_RELATIONS = """
SELECT {columns} FROM {source}
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = %s
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND NOT c.relispartition AND {condition}
AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_depend o
  WHERE c.relkind = 'S' AND o.classid = 'pg_catalog.pg_class'::regclass AND o.objid = c.oid AND o.deptype IN ('a', 'i')
)
"""
_BY_NAME = _RELATIONS.format(
    columns="{columns}", source="pg_catalog.pg_class c", condition="c.relname >= %s AND c.relname < %s"
)
_BY_SCHEMA = _RELATIONS.format(
    columns="{columns}",
    source="""pg_catalog.pg_depend d
JOIN pg_catalog.pg_class c ON c.oid = d.objid""",
    condition="""d.classid = 'pg_catalog.pg_class'::regclass AND d.objsubid = 0
AND d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = n.oid""",
)

# Columns with their types, then unique indexes: column names and NULL.
_DESCRIBE = """
SELECT n.nspname, c.relname, a.attname, t.typname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {conditions}
UNION ALL
SELECT n.nspname, c.relname,
  (
    SELECT string_agg(a.attname, ',') FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
  ), NULL
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
WHERE {conditions}
"""

# For each right: one schema in which it is missing on application tables, and the number of such schemas.
_MISSING_RIGHTS = """
SELECT wanted.label, quote_ident(min(n.nspname::text)), count(DISTINCT n.oid)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN (VALUES ('read', 'SELECT'), ('write', 'INSERT')) AS wanted (label, privilege)
WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY (%s) AND c.relname ~ '(events|snapshots|tracking)$'
  AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, wanted.privilege))
GROUP BY wanted.label
"""
