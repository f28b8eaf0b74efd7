"""Hooks for Alembic's autogenerate, to pass to ``context.configure``; they work without importing Alembic.

Applications create their tables themselves, so autogenerate finds tables that no metadata has, and would drop them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy_utils import UUIDType

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.recorders.base import SQLAlchemyRecorder

__all__ = ["compare_type", "include_object", "metadata_of", "render_item"]

_STORED: Final = frozenset({"originator_id", "originator_version", "topic", "state"})
_TRACKING: Final = frozenset({"application_name", "notification_id"})
_OF_VIEWS: Final = "_tracking_"  # in the names that own_table() gives


def include_object(obj: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Return False for a table that autogenerate would drop although an application owns it.

    Recognised by their columns are tables of events, snapshots and positions, and by its name a table that a view got
    from ``own_table()``. A table that your metadata has is compared as any other.
    """
    if type_ != "table" or not reflected or compare_to is not None:
        return True
    columns = frozenset(obj.columns.keys())
    return not (columns >= _STORED or columns == _TRACKING or _OF_VIEWS in str(name))


def render_item(
    type_: str,
    obj: Any,
    autogen_context: Any,  # noqa: ARG001 (Alembic's signature)
) -> str | Literal[False]:
    """Return the type of a column of UUIDs as SQLAlchemy alone can make it, and False for anything else."""
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
    """Return whether the types of a column differ, for a column of UUIDs that the database stores as bytes, and None,
    which lets Alembic compare, for anything else.
    """
    if _is_uuid(metadata_type) and not context.dialect.supports_native_uuid:
        # A type that such a database does not know is reported as whatever its rules make of the name.
        return isinstance(inspected_type, sa.Integer | sa.String)
    return None


def _is_uuid(type_: Any) -> bool:
    return isinstance(type_, UUIDType) and type_.binary and type_.native


def metadata_of(*recorders: SQLAlchemyRecorder) -> sa.MetaData:
    """Return metadata with the tables of recorders, for migrations to create them instead of ``CREATE_TABLE=yes``.

    Connects to the database, whose default schema it leaves unnamed, as Alembic does.
    """
    metadata = sa.MetaData()
    for recorder in recorders:
        default = recorder.datastore.default_schema()
        for spec in recorder.tables:
            schema: Any = None if spec.name.schema == default else spec.name.schema
            spec.table().to_metadata(metadata, schema=schema)
    return metadata
