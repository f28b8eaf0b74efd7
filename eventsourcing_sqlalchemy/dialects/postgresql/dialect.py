"""PostgreSQL: connections, sessions, tables and wake-ups. ``writer`` writes the events.

Every statement must work behind a transaction pooler and on Citus. Names are therefore schema-qualified, nothing
depends on the session (no search_path, SET or session lock), and settings use ``set_config(..., true)`` only.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from typing import Any, ClassVar
from uuid import UUID

from eventsourcing.persistence import NotSupportedError, ProgrammingError
from sqlalchemy.engine import URL, Connection, Engine

from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.conversion import milliseconds, uuid_of_int
from eventsourcing_sqlalchemy.dialects.postgresql import catalog as postgresql_catalog
from eventsourcing_sqlalchemy.dialects.postgresql import sequences as postgresql_sequences
from eventsourcing_sqlalchemy.dialects.postgresql.arrays import BinaryArrays, TextArrays
from eventsourcing_sqlalchemy.dialects.postgresql.drivers import Driver, DriverListener, driver_for
from eventsourcing_sqlalchemy.dialects.postgresql.replacing import PostgreSQLReplacer
from eventsourcing_sqlalchemy.dialects.postgresql.scratch import scratch_schema
from eventsourcing_sqlalchemy.dialects.postgresql.session import NewSession, remember
from eventsourcing_sqlalchemy.dialects.postgresql.transfer import PostgreSQLRowTransfer
from eventsourcing_sqlalchemy.dialects.postgresql.writer import PostgreSQLEventWriter
from eventsourcing_sqlalchemy.dialects.protocols import EventWriter, Executor, Listener, RelationId, RelationKind, Right
from eventsourcing_sqlalchemy.dialects.validation import check_text, check_uuid
from eventsourcing_sqlalchemy.engine_settings import EngineSettings, OriginatorIDType
from eventsourcing_sqlalchemy.errors import READ_ONLY
from eventsourcing_sqlalchemy.naming import TableName, quote
from eventsourcing_sqlalchemy.tables import TableShape, TableSpec

# Minimum lock timeout for creating tables, in seconds: processes of a starting fleet queue for a schema.
_MIN_DDL_LOCK_TIMEOUT = 30.0


class PostgreSQLDialect(Dialect):
    """PostgreSQL 12 and later, through psycopg2, psycopg or pg8000."""

    name = "postgresql"
    drivers: ClassVar = {
        "psycopg2": "pip install psycopg2-binary",
        "psycopg": "pip install 'eventsourcing-sqlalchemy[psycopg]'",
        "pg8000": "pip install pg8000",
    }
    is_server = True
    remembers_tables = True
    identifier_limit = 63
    has_schemas = True
    placeholder = "%s"
    can_notify = True
    id_sequences = postgresql_sequences.PostgreSQLSequences()
    table_replacer = PostgreSQLReplacer()
    row_transfer = PostgreSQLRowTransfer()
    # Drivers transfer states as hexadecimal text, and PostgreSQL limits a value to 1 GiB.
    max_event_bytes = 480 * 2**20
    notify_statement = "SELECT pg_notify(%s, %s)"
    # A wake-up need not be durable; its commit must not delay those of events.
    notify_alone_statement = f"SELECT set_config('synchronous_commit', 'off', true), {notify_statement[7:]}"
    remedies: ClassVar = {
        "42P01": "Set CREATE_TABLE=yes, or create it beforehand",
        "3F000": "Set CREATE_TABLE=yes, or create it beforehand",
        "42703": "The table has another shape: a column is missing. Use another schema or table prefix",
        "22001": "The tracking table has version 0, for application names of at most 32 characters. Migrate it with "
        "recorder.migrate_tables(), or shorten the application's name",
        READ_ONLY: "The database is a standby, or default_transaction_read_only is on. Connect to the primary; with "
        "several hosts in SQLALCHEMY_URL, add target_session_attrs=read-write",
        postgresql_catalog.INSUFFICIENT_PRIVILEGE: "Grant the connecting role its missing privilege: USAGE on "
        "the schema, SELECT and INSERT on the tables, UPDATE on the tracking table, USAGE on the sequence; SELECT and "
        "UPDATE on the sequence to repair it",
        "ascii": "The connection's client encoding is SQL_ASCII. Create the engine with client_encoding='utf8'",
        "55P03": "Another transaction holds the lock for longer than SQLALCHEMY_LOCK_TIMEOUT. Retry",
    }

    def __init__(self, driver: str) -> None:
        super().__init__(driver)
        self._driver: Driver = driver_for(driver)
        self.takes_several_hosts = self._driver.takes_several_hosts

    def compatible_drivers(self) -> Sequence[str]:
        escapes = self._driver.escapes_percent_in_quotes
        return [name for name in self.drivers if driver_for(name).escapes_percent_in_quotes == escapes]

    # -- engines and connections --

    def engine_options(self, url: URL, settings: EngineSettings) -> dict[str, Any]:
        options: dict[str, Any] = {
            "isolation_level": "AUTOCOMMIT",
            "pool_size": settings.pool_size,
            "max_overflow": settings.max_overflow,
            "pool_timeout": settings.pool_timeout,
            # Prefer the connection used last: its server process has warm caches.
            "pool_use_lifo": True,
            "pool_recycle": settings.pool_recycle,
            "pool_pre_ping": settings.pool_pre_ping,
        }
        if self._driver.probes_hstore:
            options["use_native_hstore"] = False  # the probe takes two round trips per connection
        arguments = self._driver.connect_arguments(settings.connect_timeout)
        options["connect_args"] = {name: value for name, value in arguments.items() if name not in url.query}
        return options

    def public_engine(self, engine: Engine) -> Engine:
        return engine.execution_options(isolation_level="READ COMMITTED")

    def scratch(self, engine: Engine) -> AbstractContextManager[tuple[Connection, str | None]]:
        return scratch_schema(engine)

    def opened(self, connection: Any, *, keeps_encoding: bool) -> None:
        actual = type(connection).__module__.partition(".")[0]
        if actual in self.drivers and actual != self.driver:
            msg = (
                f"The connection creator returned a connection of {actual}, but the URL names {self.driver}. Set the "
                f"URL to {self.name}+{actual}://"
            )
            raise NotSupportedError(msg)
        driver = self._driver
        encoding = driver.parameter(connection, "client_encoding")
        # SQL_ASCII means no conversion: drivers then return bytes, or accept ASCII only.
        if encoding != "UTF8" and (encoding == "SQL_ASCII" or not keeps_encoding):
            driver.use_utf8(connection)
        if not (driver.parameter(connection, "DateStyle") or "").startswith("ISO"):
            driver.run_script(connection, "SET DateStyle TO 'ISO'")
        if self.in_transaction(connection):
            connection.commit()

    def connected(self, connection: Any, settings: EngineSettings) -> None:
        self._driver.connected(connection, settings.connect_timeout or 0.0)
        mode = settings.prepare_statements
        if self._driver.splits_statements and mode != "on" and self.is_behind_pooler(connection):
            msg = (
                f"{self.driver} cannot be used behind a transaction pooler such as PgBouncer: a statement and its "
                "parameters may reach different server processes, and write events to another application's tables. "
                "Connect to the server directly, or use psycopg2 or psycopg. If the pooler runs in session mode, set "
                "SQLALCHEMY_PREPARE_STATEMENTS=on"
            )
            raise NotSupportedError(msg)
        if self._driver.prepares:
            if mode == "auto":
                mode = "off" if self.is_behind_pooler(connection) else "on"
            self._driver.prepare(connection, "on" if mode == "on" else "off")

    def is_behind_pooler(self, connection: Any) -> bool:
        # A pooler announces its own process id, and forwards the query to a server process.
        announced_pid = self._driver.backend_pid(connection)
        if announced_pid is None:
            return False
        cursor = connection.cursor()  # not a context manager in every driver
        cursor.execute("SELECT pg_backend_pid()")
        actual_pid = cursor.fetchone()[0]
        cursor.close()
        return bool(actual_pid != announced_pid)

    def is_stale(self, connection: Any) -> bool:
        # A server sends nothing to an idle connection before it closes it, so readable data is suspicious.
        descriptor = self._driver.fileno(connection)
        if descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def in_transaction(self, connection: Any) -> bool:
        return not self._driver.is_idle(connection)

    def remember(self, connection: Any, *, is_prepared: bool) -> NewSession:
        reported = partial(self._driver.parameter, connection)
        return remember(self._driver.remember(connection), reported, self.cursor(connection) if is_prepared else None)

    def reset(self, connection: Any, initial_state: NewSession) -> None:
        if self.in_transaction(connection):
            self.rollback(connection)
        self._driver.reset(connection, initial_state.driver_state)
        connection.autocommit = True
        self._driver.run_script(connection, initial_state.reset_script)

    def cursor(self, connection: Any) -> Any:
        return self._driver.cursor(connection)

    def execute_once(self, cursor: Any, statement: str, parameters: Sequence[Any]) -> None:
        self._driver.execute_once(cursor, statement, parameters)

    def run_script(self, connection: Any, statements: Sequence[str]) -> None:
        self._driver.run_script(connection, ";\n".join(statements))

    def load(self, connection: Any, statement: str, rows: bytes) -> None:
        self._driver.load(connection, statement, rows)

    def checked_in(self, connection: Any) -> None:
        # After the reset, SQLAlchemy before 2.0.20 restores the server's default isolation level instead of the
        # engine's. Without autocommit, the next events on this connection would not be committed.
        if not connection.autocommit:
            connection.autocommit = True

    def rollback(self, connection: Any) -> None:
        # In autocommit mode, a driver's rollback() ignores a transaction that a literal BEGIN has opened.
        connection.rollback()
        if self.in_transaction(connection):
            self._driver.run_script(connection, "ROLLBACK")

    @contextmanager
    def autocommit(self, connection: Any) -> Iterator[None]:
        self.check_exclusive(connection)
        before = connection.autocommit
        connection.autocommit = True
        try:
            yield
        finally:
            if not getattr(connection, "closed", False):
                if self.in_transaction(connection):
                    self.rollback(connection)
                connection.autocommit = before

    # -- transactions --

    def begin(self, executor: Executor, settings: EngineSettings) -> None:
        # If this client disappears, the server would otherwise keep the transaction and its writer lock until the TCP
        # timeout.
        timeout = milliseconds(settings.idle_in_transaction_session_timeout)
        executor.run_script(
            [self.begin_statement, f"SELECT set_config('idle_in_transaction_session_timeout', '{timeout}', true)"]
        )

    def session_options(self, *, commit: bool) -> dict[str, Any]:
        return {}

    def ensure_transaction(self, connection: Connection) -> None:
        driver_connection: Any = connection.connection.dbapi_connection
        if driver_connection.autocommit:
            msg = (
                "The session's engine has isolation_level='AUTOCOMMIT', and cannot hold a transaction. Create the "
                "engine, or the session's connection, without it."
            )
            raise ProgrammingError(msg)

    def session_began(self, connection: Connection, settings: EngineSettings) -> bool:
        result = connection.exec_driver_sql(
            "SELECT set_config('lock_timeout', %s, true), set_config('idle_in_transaction_session_timeout', %s, true), "
            "current_setting('transaction_read_only')",
            (milliseconds(settings.lock_timeout), milliseconds(settings.idle_in_transaction_session_timeout)),
        )
        return bool(result.one()[2] == "off")

    # -- names, tables and values --

    def default_schema(self, engine_default: str | None) -> str | None:
        return engine_default or "public"

    def render(self, table: TableName, *, parameters: bool = True) -> str:
        return str(table).replace("%", "%%") if parameters and self._driver.escapes_percent_in_quotes else str(table)

    def describe(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, TableShape]:
        return postgresql_catalog.describe(executor, tables)

    reads_ahead = True

    def describe_all(self, executor: Executor) -> dict[TableName, TableShape]:
        return postgresql_catalog.describe_all(executor)

    def schemas(self, executor: Executor, prefix: str) -> list[str]:
        return postgresql_catalog.schemas(executor, prefix)

    def relations(self, executor: Executor, schema: str | None, prefix: str) -> list[tuple[RelationKind, str]]:
        return postgresql_catalog.relations(executor, schema or "public", prefix)

    def relation_ids(self, executor: Executor, schema: str | None, prefix: str) -> dict[str, RelationId]:
        return postgresql_catalog.relation_ids(executor, schema or "public", prefix)

    def server_version(self, executor: Executor) -> str:
        return f"PostgreSQL {executor.fetch('SHOW server_version')[0][0].partition(' ')[0]}"

    def missing_rights(self, executor: Executor, schemas: Sequence[str | None]) -> dict[Right, str]:
        return postgresql_catalog.missing_rights(executor, schemas)

    def create(self, executor: Executor, specs: Sequence[TableSpec], settings: EngineSettings) -> None:
        postgresql_catalog.create(executor, specs, max(settings.lock_timeout or 0.0, _MIN_DDL_LOCK_TIMEOUT))

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
        bind = self.bind_originator_id(originator_id_type)
        binary = is_prepared and self._driver.takes_binary_arrays
        return PostgreSQLEventWriter(
            table=events,
            events=self.render(events) if events else None,
            lock_key=events.key if events and ordered else None,
            tracking=self.render(tracking) if tracking else None,
            originator_id_type=originator_id_type,
            bind_originator_id=bind,
            lock_timeout=milliseconds(settings.lock_timeout),
            max_event_bytes=self.max_event_bytes,
            arrays=BinaryArrays(bind, originator_id_type) if binary else TextArrays(bind),
        )

    def bind_originator_id(self, originator_id_type: OriginatorIDType) -> Callable[[UUID | str], Any]:
        return _uuid_as_text if originator_id_type == "uuid" else check_text

    def select_originator_id(self, originator_id_type: OriginatorIDType) -> str:
        # Otherwise select text, because the drivers differ in how they return the type uuid.
        is_read = originator_id_type == "text" or self._driver.reads_uuids
        return "originator_id" if is_read else "originator_id::text"

    def read_originator_id(self, originator_id_type: OriginatorIDType) -> Callable[[Any], UUID | str]:
        if originator_id_type == "text":
            return str
        return _to_uuid if self._driver.reads_uuids else _text_to_uuid

    # -- wake-ups --

    def listen(self, connection: Any, channel: str) -> Listener | None:
        if not self._driver.can_listen or self.is_behind_pooler(connection):
            return None
        self._driver.run_script(connection, f"LISTEN {quote(channel)}")
        return DriverListener(connection, self._driver)


def _uuid_as_text(originator_id: UUID | str) -> str:
    return str(check_uuid(originator_id))


def _to_uuid(value: UUID | str) -> UUID:
    # A user's engine may be configured to return uuids as text.
    return value if isinstance(value, UUID) else UUID(str(value))


@lru_cache(maxsize=1024)  # one aggregate's events are often close together in the log
def _text_to_uuid(value: str) -> UUID:
    return uuid_of_int(int(value.replace("-", ""), 16))
