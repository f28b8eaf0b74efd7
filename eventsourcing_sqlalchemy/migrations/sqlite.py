"""Steps on SQLite, which can change few properties of a table: the others need a copy of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Final

from eventsourcing.persistence import ProgrammingError

from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.conversion import milliseconds
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.migrations.steps import Step, Steps
from eventsourcing_sqlalchemy.naming import EVENTS_INDEX_SUFFIX, quote
from eventsourcing_sqlalchemy.tables import TableSpec

__all__ = ["SQLiteSteps"]

_EVENTS_1: Final = """
CREATE TABLE {table} (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    originator_id {originator_id} NOT NULL,
    originator_version BIGINT NOT NULL,
    topic TEXT NOT NULL,
    state BLOB NOT NULL
)
"""
_TRACKING_1: Final = """
CREATE TABLE {table} (
    application_name TEXT NOT NULL,
    notification_id BIGINT NOT NULL,
    PRIMARY KEY (application_name)
)
"""


def _to_1(executor: Executor, spec: TableSpec) -> Sequence[str]:
    if spec.kind == "events":
        type_ = {"uuid": "BINARY(16)", "text": "TEXT"}[spec.originator_id_type]
        columns = ("id", "originator_id", "originator_version", "topic", "state")
        index = quote(spec.name.name + EVENTS_INDEX_SUFFIX)
        # It exists already, except where a constraint of the old table had its place.
        unique = f"CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {spec.name} (originator_id, originator_version)"
        return [*_rebuild(executor, spec, _EVENTS_1.format(table=spec.name, originator_id=type_), columns), unique]
    if spec.kind == "tracking":
        return _rebuild(executor, spec, _TRACKING_1.format(table=spec.name), ("application_name", "notification_id"))
    return []


# A copy in the temporary database. Renaming a table would also rename it in the views and triggers that read it.
_COPY: Final = 'temp."eventsourcing_sqlalchemy_copy"'
_IS_LOST: Final = re.compile(r"\b(CHECK|REFERENCES|GENERATED|COLLATE|STRICT|WITHOUT)\b", re.IGNORECASE)
_QUOTED: Final = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]""")


def _rebuild(executor: Executor, spec: TableSpec, create: str, columns: Sequence[str]) -> list[str]:
    """Return the statements that replace a table and keep its rows, further columns, indexes and triggers.

    Raises ProgrammingError for a table with constraints that would be lost.
    """
    name = spec.name.name
    ((sql,),) = executor.fetch("SELECT sql FROM main.sqlite_master WHERE type = 'table' AND name = ?", (name,))
    _check(executor, spec, sql)
    more = [
        (quote(column), f"{type_}{' NOT NULL' if is_required else ''}{f' DEFAULT ({default})' if default else ''}")
        for column, type_, is_required, default in executor.fetch(
            "SELECT name, type, \"notnull\", dflt_value FROM pragma_table_info(?, 'main')", (name,)
        )
        if column not in columns
    ]
    others = executor.fetch(
        "SELECT sql FROM main.sqlite_master WHERE tbl_name = ? AND type IN ('index', 'trigger') AND sql IS NOT NULL "
        "ORDER BY type, name",
        (name,),
    )
    every = ", ".join([*columns, *(column for column, _ in more)])
    return [
        f"CREATE TEMPORARY TABLE {_COPY.removeprefix('temp.')} AS SELECT {every} FROM {spec.name}",
        f"DROP TABLE {spec.name}",
        create,
        *(f"ALTER TABLE {spec.name} ADD COLUMN {column} {definition}" for column, definition in more),
        f"INSERT INTO {spec.name} ({every}) SELECT {every} FROM {_COPY} ORDER BY 1",
        f"DROP TABLE {_COPY}",
        *(row[0] for row in others),
    ]


def _check(executor: Executor, spec: TableSpec, sql: str) -> None:
    children = executor.fetch(
        "SELECT 1 FROM main.sqlite_master AS m, pragma_foreign_key_list(m.name) AS f "
        "WHERE m.type = 'table' AND f.\"table\" = ? COLLATE NOCASE AND (SELECT foreign_keys FROM pragma_foreign_keys)",
        (spec.name.name,),
    )
    lost = _IS_LOST.search(_QUOTED.sub("", sql))
    if children or lost is not None:
        fault = "other tables refer to it" if children else f"its definition contains {lost and lost[0].upper()}"
        msg = (
            f"The table {spec.name} cannot be rebuilt: {fault}, and a rebuild would lose that. Rebuild it as the page "
            "'Upgrading' of the documentation shows."
        )
        raise ProgrammingError(msg)


class SQLiteSteps(Steps):
    """See :class:`Steps`."""

    all: ClassVar[Sequence[Step]] = (_to_1,)

    def begin(self, executor: Executor, dialect: Dialect, settings: EngineSettings, lock_timeout: float) -> None:
        executor.fetch(f"PRAGMA busy_timeout = {milliseconds(lock_timeout)}")
        dialect.begin(executor, settings)
