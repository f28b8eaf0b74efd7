"""PostgreSQL: connections, sessions, tables and wake-ups. How events are written is in ``postgresql_writer``.

Rules of every statement, so that it works behind a pooler in transaction mode and on Citus: names are qualified with
their schema; nothing depends on the session (no search_path, SET or lock); settings are ``set_config(..., true)`` only.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from eventsourcing.persistence import NotSupportedError, ProgrammingError

from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.postgresql import catalog as postgresql_catalog
from eventsourcing_sqlalchemy.dialects.postgresql import sequences as postgresql_sequences
from eventsourcing_sqlalchemy.dialects.postgresql.arrays import BinaryArrays, TextArrays
from eventsourcing_sqlalchemy.dialects.postgresql.drivers import Driver, DriverListener, driver_for
from eventsourcing_sqlalchemy.dialects.postgresql.writer import PostgreSQLEventWriter
from eventsourcing_sqlalchemy.dialects.postgresql_session import NewSession, remember
from eventsourcing_sqlalchemy.dialects.protocols import EventWriter, Executor, Listener, RelationKind, Right
from eventsourcing_sqlalchemy.dialects.validation import check_text, check_uuid, milliseconds, uuid_of_int
from eventsourcing_sqlalchemy.errors import READ_ONLY
from eventsourcing_sqlalchemy.naming import TableName, quote
from eventsourcing_sqlalchemy.tables import TableShape

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Engine

    from eventsourcing_sqlalchemy.options import EngineSettings, OriginatorIDType
    from eventsourcing_sqlalchemy.tables import TableSpec

# How long making a table may wait for other processes that make tables in the same schema, at least: they queue up when
# a fleet starts.
_MIN_DDL_LOCK_TIMEOUT = 30.0


class PostgreSQLDialect(Dialect):
    """PostgreSQL 12 and later through psycopg2, psycopg or pg8000."""

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
    id_sequences = postgresql_sequences.PostgreSQLCounters()
    # Drivers send and receive states as hexadecimal text, and PostgreSQL handles at most 1 GiB at once.
    max_event_bytes = 480 * 2**20
    notify_statement = "SELECT pg_notify(%s, %s)"
    # What only wakes somebody need not wait for the disk, nor make those wait who write events.
    notify_alone_statement = f"SELECT set_config('synchronous_commit', 'off', true), {notify_statement[7:]}"
    remedies: ClassVar = {
        "42P01": "Set CREATE_TABLE=yes, or create it beforehand",
        "3F000": "Set CREATE_TABLE=yes, or create it beforehand",
        "42703": "It was not made for this: a column is missing. Use another schema or table prefix",
        "22001": "The table of tracking positions was made for application names of at most 32 characters. "
        "ALTER its column application_name to the type text, or shorten the name of the application",
        READ_ONLY: "The database is read-only: a standby, or default_transaction_read_only is on. Connect to the "
        "primary; with several hosts in SQLALCHEMY_URL, add target_session_attrs=read-write",
        postgresql_catalog.INSUFFICIENT_PRIVILEGE: "Grant the role that connects what it lacks: USAGE on the "
        "schema, SELECT and INSERT on the tables, UPDATE on that of tracking positions, USAGE on the sequence, and to "
        "repair a sequence SELECT and UPDATE on it",
        "ascii": "The client encoding of the connection is SQL_ASCII. Make the engine with client_encoding='utf8'",
        "55P03": "Another transaction holds its lock for longer than SQLALCHEMY_LOCK_TIMEOUT. Try again",
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
            # The connection that was used last: its server process has everything at hand.
            "pool_use_lifo": True,
            "pool_recycle": settings.pool_recycle,
            "pool_pre_ping": settings.pool_pre_ping,
        }
        if self._driver.looks_for_hstore:
            options["use_native_hstore"] = False  # looking for it costs two round trips for every new connection
        arguments = self._driver.connect_arguments(settings.connect_timeout)
        options["connect_args"] = {name: value for name, value in arguments.items() if name not in url.query}
        return options

    def public_engine(self, engine: Engine) -> Engine:
        return engine.execution_options(isolation_level="READ COMMITTED")

    def opened(self, connection: Any, *, keeps_encoding: bool) -> None:
        found = type(connection).__module__.partition(".")[0]
        if found in self.drivers and found != self.driver:
            msg = (
                f"The creator of connections has opened one of {found}, and the URL names {self.driver}. Set the URL "
                f"to {self.name}+{found}://"
            )
            raise NotSupportedError(msg)
        driver = self._driver
        encoding = driver.parameter(connection, "client_encoding")
        # SQL_ASCII is no encoding: the drivers read bytes then, or ASCII alone.
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
                f"{self.driver} cannot be used behind a pooler such as PgBouncer: events could end up in the tables of "
                "another application, because a statement and its parameters may reach two server processes. Connect "
                "to the server itself or use psycopg2 or psycopg. If the pooler keeps one server process for each "
                "client (session mode), set SQLALCHEMY_PREPARE_STATEMENTS=on"
            )
            raise NotSupportedError(msg)
        if self._driver.prepares:
            if mode == "auto":
                mode = "off" if self.is_behind_pooler(connection) else "on"
            self._driver.prepare(connection, "on" if mode == "on" else "off")

    def is_behind_pooler(self, connection: Any) -> bool:
        told = self._driver.backend_pid(connection)  # behind a pooler, another server process answers
        if told is None:
            return False
        cursor = connection.cursor()  # not every driver's is a context manager
        cursor.execute("SELECT pg_backend_pid()")
        answers = cursor.fetchone()[0]
        cursor.close()
        return bool(answers != told)

    def is_stale(self, connection: Any) -> bool:
        # A server says nothing to an idle connection, except that it closes it. Whatever is readable is reason enough
        # to ask.
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

    def reset(self, connection: Any, as_new: NewSession) -> None:
        if self.in_transaction(connection):
            self.rollback(connection)
        self._driver.reset(connection, as_new.of_driver)
        connection.autocommit = True
        self._driver.run_script(connection, as_new.reset_script)

    def cursor(self, connection: Any) -> Any:
        return self._driver.cursor(connection)

    def execute_once(self, cursor: Any, statement: str, parameters: Sequence[Any]) -> None:
        self._driver.execute_once(cursor, statement, parameters)

    def run_script(self, connection: Any, statements: Sequence[str]) -> None:
        self._driver.run_script(connection, ";\n".join(statements))

    def checked_in(self, connection: Any) -> None:
        # Before 2.0.20, SQLAlchemy takes the isolation level of a session back to the server's default and not to the
        # engine's, after the reset: what is recorded on the connection next would not be committed.
        if not connection.autocommit:
            connection.autocommit = True

    def rollback(self, connection: Any) -> None:
        # A literal ROLLBACK also ends a transaction that was begun by a literal BEGIN, which rollback() of a driver in
        # autocommit overlooks.
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
        # If this client vanishes without a word, the server would otherwise keep the transaction, and with it the
        # writer lock, for as long as TCP takes to notice.
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
                "The engine of this session has isolation_level='AUTOCOMMIT', and cannot hold a transaction. Make the "
                "engine, or this session's connection, without it."
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
        # Else as text, which all drivers hand over as it is; each has ways of its own for the type uuid.
        is_read = originator_id_type == "text" or self._driver.reads_uuids
        return "originator_id" if is_read else "originator_id::text"

    def read_originator_id(self, originator_id_type: OriginatorIDType) -> Callable[[Any], UUID | str]:
        if originator_id_type == "text":
            return str
        return _as_it_is if self._driver.reads_uuids else _as_uuid

    # -- wake-ups --

    def listen(self, connection: Any, channel: str) -> Listener | None:
        if not self._driver.can_listen or self.is_behind_pooler(connection):
            return None
        self._driver.run_script(connection, f"LISTEN {quote(channel)}")
        return DriverListener(connection, self._driver)


def _uuid_as_text(originator_id: UUID | str) -> str:
    return str(check_uuid(originator_id))


def _as_it_is(value: UUID | str) -> UUID:
    # An engine of the user's may read uuids in another way.
    return value if isinstance(value, UUID) else UUID(str(value))


@lru_cache(maxsize=1024)  # events of one aggregate are often near each other in a log
def _as_uuid(value: str) -> UUID:
    return uuid_of_int(int(value.replace("-", ""), 16))
