"""Read SQLite's catalog: existing tables and their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eventsourcing.persistence import ProgrammingError

from eventsourcing_sqlalchemy.dialects.protocols import Executor, RelationId, RelationKind
from eventsourcing_sqlalchemy.naming import TableName, quote
from eventsourcing_sqlalchemy.tables import TableShape


def describe(executor: Executor, tables: Sequence[TableName]) -> dict[TableName, TableShape]:
    """Return the shapes of the tables that exist.

    Raises ProgrammingError for a name that differs from an existing table's only in case: SQLite would use that table,
    which belongs to another application.
    """
    placeholders = ", ".join(["?"] * len(tables))
    condition = f"m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN ({placeholders})"
    names = [table.name for table in tables]
    found = _shapes(executor.fetch(_DESCRIBE.format(condition=condition), names * 3))
    by_folded_name = {_fold(name): name for name in found}
    for table in tables:
        name = by_folded_name.get(_fold(table.name), table.name)
        if table.name not in found and name in found:
            msg = (
                f"Table {quote(name)} exists, and SQLite does not distinguish it from {table}. "
                "Choose a name or a SQLALCHEMY_TABLE_PREFIX that differs in more than case."
            )
            raise ProgrammingError(msg)
    return {table: found[table.name] for table in tables if table.name in found}


def describe_all(executor: Executor) -> dict[TableName, TableShape]:
    """Return the shapes of all tables whose names end like an application's."""
    # Not of views: reading one whose table was dropped fails.
    ends = " OR ".join(f"m.name LIKE '%{end}'" for end in ("events", "snapshots", "tracking"))
    found = _shapes(executor.fetch(_DESCRIBE.format(condition=f"m.type = 'table' AND ({ends})")))
    return {TableName(None, name): shape for name, shape in found.items()}


def _shapes(rows: Sequence[Sequence[str]]) -> dict[str, TableShape]:
    shapes: dict[str, TableShape] = {}
    keys: dict[tuple[str, str], set[str]] = {}
    for table, column, column_type, key in rows:
        shape = shapes.setdefault(table, TableShape())
        if column_type is not None:
            shape.columns[column] = column_type
        if key is not None:
            keys.setdefault((table, key), set()).add(column)
        if column_type is None and key is None:
            shape.reuses_ids = True
    for (table, _), columns in keys.items():
        shapes[table].unique.append(frozenset(columns))
    for table, shape in shapes.items():
        # SQLite generates ids for an INTEGER PRIMARY KEY only.
        if "id" in shape.columns and (keys.get((table, _PRIMARY)) != {"id"} or shape.columns["id"] != "integer"):
            shape.faults.append("its column id is not INTEGER PRIMARY KEY")
    return shapes


def _fold(name: str) -> bytes:
    return name.encode().lower()  # ASCII only, like SQLite


def relations(executor: Executor, prefix: str) -> list[tuple[RelationKind, str]]:
    """Return the tables and views whose names start with a prefix."""
    return [
        (kind, name) for kind, name in executor.fetch(_RELATIONS.format(columns="type, name"), (len(prefix), prefix))
    ]


def relation_ids(executor: Executor, prefix: str) -> dict[str, RelationId]:
    """Return the ids of the same relations, by name, within a transaction."""
    # Nothing else writes during a transaction that writes. A renamed table keeps its root page; a view has none.
    return {
        name: RelationId(page, may_be_ours=True)
        for name, page in executor.fetch(_RELATIONS.format(columns="name, rootpage"), (len(prefix), prefix))
    }


_RELATIONS: Final = """
SELECT {columns} FROM sqlite_master
WHERE type IN ('table', 'view') AND substr(name, 1, ?) = ? AND name NOT LIKE 'sqlite^_%' ESCAPE '^'
"""

# Columns with their types, then the columns of unique indexes, then tables whose ids may be reused: neither a type nor
# a key. The last value names the key of the column.
_PRIMARY: Final = ""
_DESCRIBE: Final = """
SELECT m.name, c.name, lower(c.type), CASE WHEN c.pk THEN '' END
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE {condition}
UNION ALL
SELECT m.name, i.name, NULL, l.name
FROM main.sqlite_master AS m, pragma_index_list(m.name, 'main') AS l, pragma_index_info(l.name, 'main') AS i
WHERE l."unique" AND NOT l.partial AND {condition}
UNION ALL
SELECT m.name, c.name, NULL, NULL
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE c.name = 'id' AND c.pk AND m.type = 'table' AND m.sql NOT LIKE '%AUTOINCREMENT%' AND {condition}
"""
