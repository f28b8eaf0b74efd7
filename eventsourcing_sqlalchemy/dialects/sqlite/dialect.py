"""SQLite: files in WAL mode, and in-memory databases.

SQLite allows one writer at a time. Writing threads of this process queue, and a write transaction starts with BEGIN
IMMEDIATE: a read transaction that writes later fails at once, whatever the timeout, if another one has written since.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from eventsourcing.persistence import OperationalError
from sqlalchemy import create_engine, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import QueuePool

from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.conversion import uuid_of_int
from eventsourcing_sqlalchemy.dialects.protocols import EventWriter, Executor, RelationId, RelationKind, Right
from eventsourcing_sqlalchemy.dialects.sqlite import catalog as sqlite_catalog
from eventsourcing_sqlalchemy.dialects.sqlite.replacing import SQLiteReplacer
from eventsourcing_sqlalchemy.dialects.sqlite.sequences import SQLiteSequences
from eventsourcing_sqlalchemy.dialects.sqlite.transfer import SQLiteRowTransfer
from eventsourcing_sqlalchemy.dialects.sqlite.writer import SQLiteEventWriter
from eventsourcing_sqlalchemy.dialects.validation import check_text, check_uuid
from eventsourcing_sqlalchemy.engine_settings import EngineSettings, OriginatorIDType
from eventsourcing_sqlalchemy.locks import renew_after_fork
from eventsourcing_sqlalchemy.naming import TableName, quote
from eventsourcing_sqlalchemy.tables import TableShape, TableSpec

# Settings that a user may change on a connection. They are restored before its next use.
_PRAGMAS = (
    "busy_timeout",
    "cache_size",
    "defer_foreign_keys",
    "foreign_keys",
    "ignore_check_constraints",
    "locking_mode",
    "query_only",
    "read_uncommitted",
    "recursive_triggers",
    "reverse_unordered_selects",
    "synchronous",
    "temp_store",
    "trusted_schema",
    "wal_autocheckpoint",
)


def is_memory(url: URL) -> bool:
    """Return whether the URL names an in-memory database."""
    database = url.database or ""
    return database in ("", ":memory:") or database.startswith("file::memory:") or url.query.get("mode") == "memory"


def is_shared_memory(url: URL) -> bool:
    """Return whether the URL names an in-memory database that all connections of the process share."""
    return is_memory(url) and url.query.get("cache") == "shared"


class SQLiteDialect(Dialect):
    """SQLite 3.35 and later, through Python's own driver."""

    name = "sqlite"
    drivers: ClassVar = {"pysqlite": "included with Python, but this build lacks the sqlite3 module"}
    is_server = False
    identifier_limit = None
    has_schemas = False
    placeholder = "?"
    can_notify = False
    remedies: ClassVar = {"SQLITE_ERROR": "If it does not exist, set CREATE_TABLE=yes, or create it beforehand"}
    max_event_bytes = 10**9 - 2**20  # SQLite refuses a row of 1,000,000,000 bytes
    begin_statement = "BEGIN IMMEDIATE"

    def __init__(self, driver: str) -> None:
        super().__init__(driver)
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock of writers, which a thread of the parent process may hold."""
        self._writer_lock = Lock()

    # -- engines and connections --

    def identity(self, url: URL) -> Hashable | None:
        if is_memory(url):
            return url if is_shared_memory(url) else None
        if (url.database or "").startswith("file:"):
            return url
        return url.set(database=str(Path(url.database or "").resolve()))

    def is_created_by_connecting(self, url: URL) -> bool:
        database = url.database or ""
        return not (is_memory(url) or database.startswith("file:") or Path(database).exists())

    def outlives_connections(self, url: URL) -> bool:
        return not is_memory(url)

    def engine_options(self, url: URL, settings: EngineSettings) -> dict[str, Any]:
        options: dict[str, Any] = {
            "isolation_level": "AUTOCOMMIT",
            "poolclass": QueuePool,
            "pool_timeout": settings.pool_timeout,
            "connect_args": {"check_same_thread": False, "timeout": settings.lock_timeout},
        }
        if is_memory(url):
            # The database exists as long as its only connection, which must be neither duplicated nor replaced.
            return options | {"pool_size": 1, "max_overflow": 0, "pool_recycle": -1}
        return options | {
            "pool_size": settings.pool_size,
            "max_overflow": settings.max_overflow,
            "pool_use_lifo": True,
            "pool_recycle": settings.pool_recycle,
        }

    def public_engine(self, engine: Engine) -> Engine:
        public = engine.execution_options()

        # The driver begins transactions lazily and for some statements only; begin them when SQLAlchemy does.
        @event.listens_for(public, "begin")
        def begin(connection: Connection) -> None:
            reads = connection.get_execution_options().get("eventsourcing_read_only", False)
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

        return public

    @contextmanager
    def scratch(self, engine: Engine) -> Iterator[tuple[Connection, str | None]]:
        memory = create_engine(URL.create(engine.url.drivername), hide_parameters=True)
        try:
            with self.public_engine(memory).connect() as connection:
                yield connection, None
        finally:
            memory.dispose()

    def connected(self, connection: Any, settings: EngineSettings) -> None:
        # Switching to WAL needs an exclusive lock and does not wait for it. While others write, or on a read-only file,
        # the mode stays, and a later connection switches.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={settings.sqlite_synchronous}")

    def watch(self, url: URL) -> Callable[[], Hashable] | None:
        if is_memory(url) or (url.database or "").startswith("file:"):
            return None
        path = Path(url.database or "").resolve()
        log = path.with_name(f"{path.name}-wal")
        return lambda: (_stamp(path), _stamp(log))

    def is_stale(self, connection: Any) -> bool:
        return False

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.in_transaction)

    def remember(self, connection: Any, *, is_prepared: bool) -> _InitialState:
        factories = connection.row_factory, connection.text_factory
        connection.row_factory, connection.text_factory = None, str
        try:
            return _InitialState(*factories, _pragmas(connection), _attached(connection), _temporary(connection))
        finally:
            connection.row_factory, connection.text_factory = factories

    def reset(self, connection: Any, initial_state: _InitialState) -> None:
        self.rollback(connection)
        connection.isolation_level = connection.row_factory = None
        connection.text_factory = str
        for name, value in _pragmas(connection).items():
            if value != initial_state.pragmas[name]:
                connection.execute(f"PRAGMA {name}={initial_state.pragmas[name]}")
                connection.execute("SELECT 1 FROM sqlite_master").fetchall()  # releases an exclusive lock
        attached = _attached(connection)
        for name, _ in attached.items() - initial_state.attached.items():
            connection.execute(f"DETACH DATABASE {quote(name)}")
        for name, file in initial_state.attached.items() - attached.items():
            connection.execute(f"ATTACH DATABASE ? AS {quote(name)}", (file,))
        for kind, name in _temporary(connection) - initial_state.temporary:
            connection.execute(f"DROP {kind} IF EXISTS temp.{quote(name)}")
        connection.row_factory, connection.text_factory = initial_state.row_factory, initial_state.text_factory

    def run_script(self, connection: Any, statements: Sequence[str]) -> None:
        # After an error the transaction is rolled back when the connection returns to the pool.
        for statement in (self.begin_statement, *statements, "COMMIT"):
            connection.execute(statement)

    def rollback(self, connection: Any) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    @contextmanager
    def autocommit(self, connection: Any) -> Iterator[None]:
        self.check_exclusive(connection)
        before = connection.isolation_level
        connection.isolation_level = None
        try:
            yield
        finally:
            self.rollback(connection)
            connection.isolation_level = before

    # -- transactions --

    @contextmanager
    def writing(self, timeout: float) -> Iterator[None]:
        # Blocks the other writers of this process during a write transaction, at most for the timeout. Waiting threads
        # are served in turn, whereas SQLite's own busy wait starves some.
        if not self._writer_lock.acquire(timeout=timeout):
            msg = (
                f"The SQLite database is locked: another transaction of this process has been writing for "
                f"{timeout:g} s. Keep transactions short, and do not write through one application inside another's "
                "transaction on the same file."
            )
            raise OperationalError(msg)
        try:
            yield
        finally:
            self._writer_lock.release()

    def session_options(self, *, commit: bool) -> dict[str, Any]:
        return {"eventsourcing_read_only": not commit}

    def session_began(self, connection: Connection, settings: EngineSettings) -> bool:
        return True  # the engine's begin event, or ensure_transaction(), begins the transaction

    def ensure_transaction(self, connection: Connection) -> None:
        # Without an open transaction, releasing our savepoint would commit the user's changes.
        driver_connection = connection.connection.dbapi_connection
        assert driver_connection is not None
        if not driver_connection.in_transaction:
            connection.exec_driver_sql(self.begin_statement)

    # -- names, tables and values --

    def default_schema(self, engine_default: str | None) -> str | None:
        return None

    def render(self, table: TableName, *, parameters: bool = True) -> str:
        return str(table)

    def describe(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, TableShape]:
        return sqlite_catalog.describe(executor, tables)

    def describe_all(self, executor: Executor) -> dict[TableName, TableShape]:
        return sqlite_catalog.describe_all(executor)

    def relations(self, executor: Executor, schema: str | None, prefix: str) -> list[tuple[RelationKind, str]]:
        return sqlite_catalog.relations(executor, prefix)

    def relation_ids(self, executor: Executor, schema: str | None, prefix: str) -> dict[str, RelationId]:
        return sqlite_catalog.relation_ids(executor, prefix)

    def server_version(self, executor: Executor) -> str:
        return f"SQLite {executor.fetch('SELECT sqlite_version()')[0][0]}"

    def missing_rights(self, executor: Executor, schemas: Sequence[str | None]) -> dict[Right, str]:
        # SQLite creates the journal in the same directory.
        files = [Path(file) for _, name, file in executor.fetch("PRAGMA database_list") if name == "main" and file]
        if all(os.access(file, os.W_OK) and os.access(file.parent, os.W_OK) for file in files):
            return {}
        remedy = "Grant the user of this process write permission on the file and its directory."
        return {"create": remedy, "write": remedy}

    def create(self, executor: Executor, specs: Sequence[TableSpec], settings: EngineSettings) -> None:
        with self.writing(settings.lock_timeout or 0.0):
            executor.run_script([statement for spec in specs for statement in spec.ddl(sqlite.dialect)])

    def writer(
        self,
        *,
        events: TableName | None,
        ordered: bool,
        tracking: TableName | None,
        originator_id_type: OriginatorIDType,
        settings: EngineSettings,
        is_prepared: bool,
    ) -> EventWriter:
        return SQLiteEventWriter(
            events=self.render(events) if events else None,
            ordered=ordered,
            tracking=self.render(tracking) if tracking else None,
            bind_originator_id=self.bind_originator_id(originator_id_type),
            max_event_bytes=self.max_event_bytes,
        )

    def bind_originator_id(self, originator_id_type: OriginatorIDType) -> Callable[[UUID | str], Any]:
        return _uuid_as_bytes if originator_id_type == "uuid" else check_text

    def read_originator_id(self, originator_id_type: OriginatorIDType) -> Callable[[Any], UUID | str]:
        return _as_uuid if originator_id_type == "uuid" else str

    id_sequences = SQLiteSequences()
    table_replacer = SQLiteReplacer()
    row_transfer = SQLiteRowTransfer()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # A reader creates an empty log if none exists.
    return (status.st_mtime_ns, status.st_size) if status.st_size else None


def _uuid_as_bytes(originator_id: UUID | str) -> bytes:
    return check_uuid(originator_id).bytes


@lru_cache(maxsize=1024)  # one aggregate's events are often close together in the log
def _as_uuid(value: bytes) -> UUID:
    return uuid_of_int(int.from_bytes(value, "big"))


class _InitialState(NamedTuple):
    """The state of a connection after creators and listeners have run."""

    row_factory: Any
    text_factory: Any
    pragmas: dict[str, Any]
    attached: dict[str, str]
    temporary: set[tuple[str, str]]


def _pragmas(connection: Any) -> dict[str, Any]:
    return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _PRAGMAS}


def _attached(connection: Any) -> dict[str, str]:
    """Return the files of attached databases by name."""
    rows = connection.execute("PRAGMA database_list").fetchall()
    return {name: file for _, name, file in rows if name not in ("main", "temp")}


def _temporary(connection: Any) -> set[tuple[str, str]]:
    """Return (kind, name) of each object in the schema ``temp``."""
    return set(connection.execute("SELECT type, name FROM temp.sqlite_master WHERE name NOT LIKE 'sqlite_%'"))
