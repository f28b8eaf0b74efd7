"""Everything that a database's catalog says about tables, to compare new tables with migrated ones."""

from __future__ import annotations

import re
from typing import Any, Final

import sqlalchemy as sa

# Each query returns rows that start with the name of a table. No oid and no name of the schema: these may differ.
_POSTGRESQL: Final = {
    "columns": """
        SELECT c.relname, a.attname, a.attnum - dropped.count, format_type(a.atttypid, a.atttypmod), a.attnotnull,
          pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, a.attstorage, o.collname
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        LEFT JOIN pg_collation o ON o.oid = a.attcollation
        CROSS JOIN LATERAL (
          SELECT count(*) AS count FROM pg_attribute x
          WHERE x.attrelid = c.oid AND x.attisdropped AND x.attnum < a.attnum
        ) AS dropped
        WHERE c.relnamespace = to_regnamespace(quote_ident(:schema)) AND c.relkind IN ('r', 'v', 'm', 'p')
    """,
    "indexes": """
        SELECT c.relname, x.relname, pg_get_indexdef(i.indexrelid), i.indisunique, i.indisprimary, i.indisvalid,
          i.indimmediate
        FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid JOIN pg_class x ON x.oid = i.indexrelid
        WHERE c.relnamespace = to_regnamespace(quote_ident(:schema))
    """,
    "constraints": """
        SELECT c.relname, k.conname, k.contype, pg_get_constraintdef(k.oid), k.convalidated
        FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid
        WHERE c.relnamespace = to_regnamespace(quote_ident(:schema))
    """,
    "sequences": """
        SELECT s.relname, format_type(q.seqtypid, NULL), q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache,
          q.seqcycle, d.refobjid::regclass::text, d.refobjsubid, d.deptype
        FROM pg_class s JOIN pg_sequence q ON q.seqrelid = s.oid
        LEFT JOIN pg_depend d ON d.objid = s.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        WHERE s.relnamespace = to_regnamespace(quote_ident(:schema))
    """,
    "triggers": """
        SELECT c.relname, t.tgname, pg_get_triggerdef(t.oid) FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid
        WHERE c.relnamespace = to_regnamespace(quote_ident(:schema))
    """,
}
_SQLITE: Final = {
    "tables": "SELECT name, type, sql LIKE '%AUTOINCREMENT%' FROM sqlite_master WHERE type IN ('table', 'view')",
    "columns": "SELECT m.name, c.* FROM sqlite_master m, pragma_table_xinfo(m.name) c WHERE m.type = 'table'",
    "indexes": 'SELECT m.name, l.name, l."unique", l.origin, l.partial, i.* FROM sqlite_master m, '
    "pragma_index_list(m.name) l, pragma_index_xinfo(l.name) i WHERE m.type = 'table'",
    "references": "SELECT m.name, f.* FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'",
    "triggers": "SELECT tbl_name, name, sql FROM sqlite_master WHERE type = 'trigger'",
}


def full_catalog(url: str, schema: str | None) -> dict[str, list[Any]]:
    """Return what the catalog says about a schema's tables, or on SQLite about all."""
    engine = sa.create_engine(url)
    is_sqlite = engine.dialect.name == "sqlite"
    queries = _SQLITE if is_sqlite else _POSTGRESQL
    parameters = {} if is_sqlite else {"schema": schema or "public"}
    with engine.connect() as connection:
        found = {name: connection.execute(sa.text(query), parameters).all() for name, query in queries.items()}
    engine.dispose()
    return {name: sorted(_without(schema, row) for row in rows) for name, rows in found.items()}


def _without(schema: str | None, row: Any) -> tuple[str, ...]:
    names = re.compile(rf'("?{re.escape(schema)}"?)\.') if schema else re.compile(r"(public)\.")
    return tuple(names.sub("", str(value)) for value in row)
