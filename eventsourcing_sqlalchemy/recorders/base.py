"""The base of all recorders: tables and transactions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

from eventsourcing.persistence import NotSupportedError, Recorder

from eventsourcing_sqlalchemy import migrations, provisioning
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import EventWriter
from eventsourcing_sqlalchemy.naming import TableName, check_identifier
from eventsourcing_sqlalchemy.tables import TableKind, TableSpec
from eventsourcing_sqlalchemy.transactions import Transaction, detached

__all__ = ["SQLAlchemyRecorder"]


class SQLAlchemyRecorder(Recorder):
    """A recorder on a datastore. ``schema_name`` None means the database's default schema."""

    def __init__(self, datastore: SQLAlchemyDatastore, *, schema_name: str | None = None) -> None:
        super().__init__()
        self.datastore = datastore
        self.schema_name = schema_name or None
        if self.schema_name is not None:
            if not datastore.dialect.has_schemas:
                msg = (
                    f"Schema {self.schema_name!r} cannot be used: {datastore.dialect.name} has no schemas. "
                    "Set SQLALCHEMY_TABLE_PREFIX instead of SQLALCHEMY_SCHEMA."
                )
                raise NotSupportedError(msg)
            self.check_identifier_length(self.schema_name)

    def __repr__(self) -> str:
        tables = ", ".join(str(spec.name) for spec in self._table_specs(self.schema_name))
        return f"{type(self).__name__}({tables}; {self.datastore.shared})"

    def check_identifier_length(self, name: str) -> None:
        """Raise ProgrammingError if ``name`` is not a valid table or schema name in this database."""
        check_identifier("name", name, self.datastore.dialect.identifier_limit)

    def create_table(self) -> None:
        """Create missing tables and their schema, and verify the shape of existing ones.

        Safe to call from many processes at once. Raises ProgrammingError for a table of an incompatible shape and for a
        missing privilege.
        """
        if not self.tables:
            return
        missing = provisioning.find_missing(self.datastore, self.tables)
        if missing:
            self._check_missing(missing)
            provisioning.create(self.datastore, missing)

    def migrate_tables(self, *, lock_timeout: float = migrations.LOCK_TIMEOUT) -> list[TableSpec]:
        """Migrate existing tables of an earlier version to the current one, all or none; return those that changed.

        Safe while other processes use the tables. An attempt gives up a lock that it waits for after ``lock_timeout``
        seconds, so that writers do not queue behind it for longer, and is repeated after growing pauses. Raises
        OperationalError after half a minute of attempts, and ProgrammingError for a table that cannot be migrated.
        """
        migrate = partial(migrations.migrate, self.datastore, self.tables, lock_timeout=lock_timeout)
        return list(migrations.retry_while_locked(migrate))

    def _check_missing(self, missing: list[TableSpec]) -> None:
        """Raise ProgrammingError if these tables must not be created."""

    def transaction(self, commit: bool = True) -> Transaction:
        """Return a context manager that yields a ``Session``; events recorded in its block commit with it.

        With ``commit=False``, the block only reads.
        """
        return self.datastore.transaction(commit=commit)

    def detached(self) -> AbstractContextManager[None]:
        """Return a context manager that hides an open transaction of the application inside its block.

        Events recorded in the block, and in tasks started there, commit independently.
        """
        return detached(self.datastore)

    @cached_property
    def tables(self) -> list[TableSpec]:
        """The specifications of the recorder's tables, as ``provisioning.create_many`` expects them.

        Resolved on first use, because the default schema must be read from the database.
        """
        return self._table_specs(self.schema_name or self.datastore.default_schema())

    def _table_specs(self, schema: str | None) -> list[TableSpec]:
        return []

    def _spec(self, kind: TableKind, schema: str | None, name: str) -> TableSpec:
        return TableSpec(kind, TableName(schema, name), self.datastore.originator_id_type)

    def _table(self, kind: TableKind) -> TableName:
        return next(spec.name for spec in self.tables if spec.kind == kind)

    def _render(self, kind: TableKind, *, parameters: bool = True) -> str:
        return self.datastore.dialect.render(self._table(kind), parameters=parameters)

    @cached_property
    def _writer(self) -> EventWriter:
        """Writes on the datastore's own connections."""
        return self._make_writer(is_prepared=self.datastore.has_prepared_connections)

    @cached_property
    def _session_writer(self) -> EventWriter:
        """Writes in sessions, whose connections may not be the datastore's own."""
        return self._make_writer(is_prepared=False)

    def _make_writer(self, *, is_prepared: bool) -> EventWriter:
        names = {spec.kind: spec.name for spec in self.tables}
        return self.datastore.dialect.writer(
            events=names.get("events") or names.get("snapshots"),
            ordered="events" in names,
            tracking=names.get("tracking"),
            originator_id_type=self.datastore.originator_id_type,
            settings=self.datastore.settings,
            is_prepared=is_prepared,
        )

    @cached_property
    def _bind_id(self) -> Callable[..., Any]:
        return self.datastore.dialect.bind_originator_id(self.datastore.originator_id_type)

    @cached_property
    def _overrides_hook(self) -> bool:
        """Whether a subclass overrides a write hook, and therefore needs a session."""
        return any(
            getattr(getattr(type(self), hook), "__module__", None) not in _OUR_MODULES
            for hook in ("_insert_events", "_insert_stored_events", "_insert_tracking")
            if hasattr(type(self), hook)
        )


_OUR_MODULES = frozenset(
    f"eventsourcing_sqlalchemy.recorders.{name}" for name in ("aggregate", "application", "process", "tracking")
)
