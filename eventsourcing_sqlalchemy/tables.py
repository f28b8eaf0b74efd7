"""Specifications of the events, snapshots and tracking tables.

Existing tables of the published package work unchanged. New tables differ only where that stays compatible:
application names have no length limit, and SQLite never reuses an id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError
from sqlalchemy.schema import CreateIndex, CreateTable

from eventsourcing_sqlalchemy.engine_settings import OriginatorIDType
from eventsourcing_sqlalchemy.naming import EVENTS_INDEX_SUFFIX, TableName, quote

__all__ = ["TableKind", "TableShape", "TableSpec", "missing_tables"]

TableKind = Literal["events", "snapshots", "tracking"]


@dataclass(slots=True)
class TableShape:
    """An existing table: column types by name, and the unique sets of columns."""

    columns: dict[str, str] = field(default_factory=dict)
    unique: list[frozenset[str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Database-specific reasons why the table cannot be used."""
    reuses_ids: bool = False
    """Whether the database may generate the id of a deleted row again."""


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table that a recorder needs."""

    kind: TableKind
    name: TableName
    originator_id_type: OriginatorIDType = "uuid"

    def table(self) -> sa.Table:
        """Return the SQLAlchemy table, in its own MetaData."""
        return _build(self.kind, self.name.schema, self.name.name, self.originator_id_type)

    def ddl(self, dialect: Callable[[], sa.Dialect]) -> list[str]:
        """Return the statements that create the table and its indexes if they do not exist."""
        templates = _compile(dialect, self.kind, self.originator_id_type, self.name.schema is not None)
        return [self._fill(template) for template in templates]

    def _fill(self, template: str) -> str:
        # In one pass, so that a name which looks like a placeholder is not replaced again.
        names = {
            quote(_TABLE + EVENTS_INDEX_SUFFIX): quote(self.name.name + EVENTS_INDEX_SUFFIX),
            quote(_TABLE): quote(self.name.name),
            quote(_SCHEMA): quote(self.name.schema or ""),
        }
        return re.sub("|".join(map(re.escape, names)), lambda match: names[match.group()], template)


# Placeholders in compiled statements. They need quoting, so that the compiler quotes them.
_SCHEMA: Final = "<schema>"
_TABLE: Final = "<table>"


def _build(kind: TableKind, schema: str | None, name: str, originator_id_type: OriginatorIDType) -> sa.Table:
    metadata = sa.MetaData()
    if kind == "tracking":
        return sa.Table(
            name,
            metadata,
            sa.Column("application_name", sa.Text, primary_key=True),
            sa.Column("notification_id", sa.BigInteger, nullable=False),
            schema=schema,
        )
    from sqlalchemy_utils import UUIDType  # noqa: PLC0415 (slow: loads every dialect; reading and writing need none)

    is_key = kind == "snapshots"
    columns: list[sa.Column[object]] = [
        sa.Column(
            "originator_id",
            UUIDType() if originator_id_type == "uuid" else sa.Text(),
            primary_key=is_key,
            nullable=False,
        ),
        sa.Column("originator_version", sa.BigInteger, primary_key=is_key, autoincrement=False, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    ]
    if is_key:
        return sa.Table(name, metadata, *columns, schema=schema)
    # SQLite generates ids for INTEGER only.
    key = sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True)
    index = sa.Index(name + EVENTS_INDEX_SUFFIX, "originator_id", "originator_version", unique=True)
    return sa.Table(name, metadata, key, *columns, index, schema=schema, sqlite_autoincrement=True)


@lru_cache
def _compile(
    dialect: Callable[[], sa.Dialect], kind: TableKind, originator_id_type: OriginatorIDType, has_schema: bool
) -> tuple[str, ...]:
    table = _build(kind, _SCHEMA if has_schema else None, _TABLE, originator_id_type)
    elements: list[CreateTable | CreateIndex] = [CreateTable(table, if_not_exists=True)]
    elements += [CreateIndex(index, if_not_exists=True) for index in table.indexes]
    return tuple(str(element.compile(dialect=dialect())).strip() for element in elements)


# Accepted column types. A table may have further columns.
_TEXTS: Final = ("text", "varchar")
_INTEGERS: Final = ("bigint", "integer", "int8", "int4")
_BINARY: Final = ("bytea", "blob", "binary")
_COLUMNS: Final[dict[TableKind, dict[str, tuple[str, ...]]]] = {
    "events": {"id": _INTEGERS, "originator_version": _INTEGERS, "topic": _TEXTS, "state": _BINARY},
    "snapshots": {"originator_version": _INTEGERS, "topic": _TEXTS, "state": _BINARY},
    "tracking": {"application_name": _TEXTS, "notification_id": _INTEGERS},
}
_ORIGINATOR_ID: Final[dict[OriginatorIDType, tuple[str, ...]]] = {"uuid": ("uuid", "blob", "binary"), "text": _TEXTS}
_UNIQUE: Final[dict[TableKind, frozenset[str]]] = {
    "events": frozenset({"originator_id", "originator_version"}),
    "snapshots": frozenset({"originator_id", "originator_version"}),
    "tracking": frozenset({"application_name"}),
}


def missing_tables(specs: Sequence[TableSpec], shapes: Mapping[TableName, TableShape]) -> list[TableSpec]:
    """Return the specs without an existing table; ``shapes`` holds the existing ones.

    Raises ProgrammingError for an existing table of an incompatible shape.
    """
    for spec in specs:
        if spec.name in shapes:
            _verify(spec, shapes[spec.name])
    return [spec for spec in specs if spec.name not in shapes]


def _verify(spec: TableSpec, shape: TableShape) -> None:
    wanted = dict(_COLUMNS[spec.kind])
    if spec.kind != "tracking":
        wanted["originator_id"] = _ORIGINATOR_ID[spec.originator_id_type]
    faults = list(shape.faults)
    for column, types in wanted.items():
        found = shape.columns.get(column)
        if found is None:
            faults.append(f"it has no column {column}")
        elif not found.startswith(types):
            faults.append(f"its column {column} is of type {found}, not {types[0]}")
    if _UNIQUE[spec.kind] not in shape.unique:
        faults.append(f"it has no unique index on {' and '.join(sorted(_UNIQUE[spec.kind]))}")
    if faults:
        msg = (
            f"The table {spec.name} exists but cannot be used for {spec.kind} with "
            f"ORIGINATOR_ID_TYPE={spec.originator_id_type}: {'; '.join(faults)}. "
            "Set another SQLALCHEMY_SCHEMA or SQLALCHEMY_TABLE_PREFIX, or rename the table."
        )
        raise ProgrammingError(msg)
