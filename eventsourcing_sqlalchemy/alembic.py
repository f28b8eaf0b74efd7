"""Hooks for Alembic's autogenerate, to pass to ``context.configure``. They do not import Alembic.

Applications create their own tables. Without these hooks, autogenerate would drop them, because they are in no
metadata.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import sqlalchemy as sa

from eventsourcing_sqlalchemy.recorders.base import SQLAlchemyRecorder

__all__ = ["compare_type", "include_object", "metadata_of", "render_item"]

_STORED: Final = frozenset({"originator_id", "originator_version", "topic", "state"})
_TRACKING: Final = frozenset({"application_name", "notification_id"})
_VIEW_INFIX: Final = "_tracking_"  # in the names that own_table() generates


def include_object(obj: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Return False for a table that an application owns, so that autogenerate does not drop it.

    Events, snapshots and tracking tables are recognized by their columns, view tables from ``own_table()`` by their
    names. Tables in your own metadata are compared as usual.
    """
    if type_ != "table" or not reflected or compare_to is not None:
        return True
    columns = frozenset(obj.columns.keys())
    return not (columns >= _STORED or columns == _TRACKING or _VIEW_INFIX in str(name))


def render_item(
    type_: str,
    obj: Any,
    autogen_context: Any,  # noqa: ARG001 (Alembic's signature)
) -> str | Literal[False]:
    """Render a UUID column's type with SQLAlchemy's own types; return False for any other object."""
    if type_ == "type" and _is_uuid(obj):
        return "sa.Uuid().with_variant(sa.BINARY(length=16), 'sqlite')"
    return False


def compare_type(
    context: Any,
    inspected_column: Any,  # noqa: ARG001 (Alembic's signature)
    metadata_column: Any,  # noqa: ARG001 (Alembic's signature)
    inspected_type: Any,
    metadata_type: Any,
) -> bool | None:
    """Return whether the types of a UUID column that is stored as bytes differ.

    Returns None for any other column, so that Alembic compares it.
    """
    if _is_uuid(metadata_type) and not context.dialect.supports_native_uuid:
        # Such a database reports an unknown type by its affinity rules.
        return isinstance(inspected_type, sa.Integer | sa.String)
    return None


def _is_uuid(type_: Any) -> bool:
    from sqlalchemy_utils import UUIDType  # noqa: PLC0415 (slow: loads every dialect; only for migrations)

    return isinstance(type_, UUIDType) and type_.binary and type_.native


def metadata_of(*recorders: SQLAlchemyRecorder) -> sa.MetaData:
    """Return metadata with the recorders' tables, so that migrations create them instead of ``CREATE_TABLE=yes``.

    Connects to the database. Tables in its default schema get no schema name, as in Alembic.
    """
    metadata = sa.MetaData()
    for recorder in recorders:
        default = recorder.datastore.default_schema()
        for spec in recorder.tables:
            schema: Any = None if spec.name.schema == default else spec.name.schema
            spec.table().to_metadata(metadata, schema=schema)
    return metadata
