"""Replace tables on SQLite: a space is a prefix of names, and tables are renamed.

SQLite changes the references of foreign keys and the names of automatic indexes along with a table. It cannot rename
other indexes, triggers and views, so they are created again from their statements.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from eventsourcing_sqlalchemy.dialects.protocols import Executor, TableReplacer
from eventsourcing_sqlalchemy.naming import TableName, quote


class SQLiteReplacer(TableReplacer):
    """Renames tables. The write transaction keeps other writers out; readers keep their snapshot."""

    def settings_of(self, space: str, schema: str | None, prefix: str) -> tuple[str | None, str]:
        return None, f"{_prefix(space)}{prefix}"

    def names_in(self, executor: Executor, space: str) -> list[str]:
        return [name.removeprefix(_prefix(space)) for _, name, _ in _objects(executor, space)]

    def dependents(self, executor: Executor, schema: str | None, names: Sequence[str]) -> list[str]:
        if not names:
            return []
        tables = set(names)
        keys = executor.fetch(_FOREIGN_KEYS)
        views = executor.fetch("SELECT name, sql FROM sqlite_master WHERE type = 'view'")
        found = [f"a foreign key of {name}" for name, table in keys if table in tables and name not in tables]
        # SQLite does not record what a view reads.
        mentioned = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")
        found += [f"the view {name}" for name, sql in views if name not in tables and mentioned.search(sql)]
        return sorted(set(found))

    def lock(self, executor: Executor, tables: Sequence[TableName], timeout: float, *, reads: bool) -> None:
        pass

    def replace(
        self, executor: Executor, schema: str | None, names: Sequence[str], *, by: str, to: str, is_default: bool
    ) -> None:
        new, wanted = _prefix(by), set(names)
        derived = [sql for _, _, sql in _derived(executor, [name for _, name, _ in _objects(executor, by)])]
        _drop_derived(executor, [*names, *(f"{new}{name}" for name in names)])
        for name in _tables(executor, ""):
            if name in wanted:
                executor.fetch(f"ALTER TABLE {quote(name)} RENAME TO {quote(_prefix(to) + name)}")
        for name in _tables(executor, new):
            executor.fetch(f"ALTER TABLE {quote(name)} RENAME TO {quote(name.removeprefix(new))}")
        for statement in derived:
            # The prefix is unique, so it occurs in names only.
            executor.fetch(statement.replace(new, ""))

    def drop(self, executor: Executor, space: str) -> None:
        names = [name for _, name, _ in _objects(executor, space)]
        executor.fetch("PRAGMA defer_foreign_keys = ON")  # until the transaction ends
        _drop_derived(executor, names)
        for name in _tables(executor, _prefix(space)):
            executor.fetch(f"DROP TABLE {quote(name)}")


def _prefix(space: str) -> str:
    return f"{space}_"


def _objects(executor: Executor, space: str) -> Sequence[Sequence[str]]:
    """Return (kind, name, statement) of the tables and views of a space."""
    prefix = _prefix(space)
    return executor.fetch(_OBJECTS, (len(prefix), prefix))


def _tables(executor: Executor, prefix: str) -> list[str]:
    return [name for kind, name, _ in executor.fetch(_OBJECTS, (len(prefix), prefix)) if kind == "table"]


def _derived(executor: Executor, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (kind, name, statement) of the indexes, triggers and views on tables with these names."""
    wanted = set(names)
    return [(kind, name, sql) for kind, name, table, sql in executor.fetch(_DERIVED) if table in wanted]


def _drop_derived(executor: Executor, names: Sequence[str]) -> None:
    # Triggers of a view are dropped with it.
    for kind, name, _ in reversed(_derived(executor, names)):
        executor.fetch(f"DROP {kind.upper()} IF EXISTS {quote(name)}")


_OBJECTS: Final = """
SELECT type, name, sql FROM sqlite_master
WHERE type IN ('table', 'view') AND substr(name, 1, ?) = ? AND name NOT LIKE 'sqlite^_%' ESCAPE '^'
"""
# In the order of their creation; indexes of constraints have no statement.
_DERIVED: Final = """
SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('index', 'trigger', 'view') AND sql IS NOT NULL
ORDER BY rowid
"""
_FOREIGN_KEYS: Final = """
SELECT m.name, k."table" FROM main.sqlite_master AS m, pragma_foreign_key_list(m.name, 'main') AS k
WHERE m.type = 'table'
"""
