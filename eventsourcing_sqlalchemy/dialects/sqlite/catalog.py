"""The tables of SQLite: which there are, and of which shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eventsourcing.persistence import ProgrammingError

from eventsourcing_sqlalchemy.dialects.protocols import Executor, RelationKind
from eventsourcing_sqlalchemy.naming import TableName, quote
from eventsourcing_sqlalchemy.tables import TableShape


def describe(executor: Executor, tables: Sequence[TableName]) -> dict[TableName, TableShape]:
    """Return the shapes of those tables that exist.

    Raises ProgrammingError for an existing table whose name differs in capitals: SQLite takes both for one table, and
    it is another application's.
    """
    places = ", ".join(["?"] * len(tables))
    condition = f"m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN ({places})"
    names = [table.name for table in tables]
    found = _shapes(executor.fetch(_DESCRIBE.format(condition=condition), names * 2))
    alike = {_fold(name): name for name in found}
    for table in tables:
        name = alike.get(_fold(table.name), table.name)
        if table.name not in found and name in found:
            msg = (
                f"There is a table {quote(name)}, and SQLite does not distinguish it from {table}. "
                "Choose a name or a SQLALCHEMY_TABLE_PREFIX that differs in more than capitals."
            )
            raise ProgrammingError(msg)
    return {table: found[table.name] for table in tables if table.name in found}


def describe_all(executor: Executor) -> dict[TableName, TableShape]:
    """Return the shapes of all tables whose names end as those of applications do."""
    # No views: one whose table is gone would be an error.
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
    for (table, _), columns in keys.items():
        shapes[table].unique.append(frozenset(columns))
    for table, shape in shapes.items():
        # Only this makes the id a number that SQLite gives out.
        if "id" in shape.columns and (keys.get((table, _PRIMARY)) != {"id"} or shape.columns["id"] != "integer"):
            shape.faults.append("its column id is not INTEGER PRIMARY KEY")
    return shapes


def _fold(name: str) -> bytes:
    return name.encode().lower()  # as SQLite does: ASCII alone


def relations(executor: Executor, prefix: str) -> list[tuple[RelationKind, str]]:
    """Return the tables and views whose names begin with a prefix."""
    return [(kind, name) for kind, name in executor.fetch(_RELATIONS, (len(prefix), prefix))]


_RELATIONS: Final = """
SELECT type, name FROM sqlite_master
WHERE type IN ('table', 'view') AND substr(name, 1, ?) = ? AND name NOT LIKE 'sqlite^_%' ESCAPE '^'
"""

# Columns with their types, and then the columns of unique indexes; the last value names the key that a column is in.
_PRIMARY: Final = ""
_DESCRIBE: Final = """
SELECT m.name, c.name, lower(c.type), CASE WHEN c.pk THEN '' END
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE {condition}
UNION ALL
SELECT m.name, i.name, NULL, l.name
FROM main.sqlite_master AS m, pragma_index_list(m.name, 'main') AS l, pragma_index_info(l.name, 'main') AS i
WHERE l."unique" AND NOT l.partial AND {condition}
"""
