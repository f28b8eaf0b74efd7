"""The interface between this package and a database. Callers ask for capabilities, and never compare names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Final
from uuid import UUID

from eventsourcing.persistence import InterfaceError
from sqlalchemy.engine import URL, Connection, Engine

from eventsourcing_sqlalchemy.dialects.protocols import (
    EventWriter,
    Executor,
    IdSequences,
    Listener,
    RelationId,
    RelationKind,
    Right,
    RowTransfer,
    TableReplacer,
)
from eventsourcing_sqlalchemy.engine_settings import EngineSettings, OriginatorIDType
from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.tables import TableShape, TableSpec

__all__ = ["Dialect"]

# For databases where writers need not queue.
_NO_QUEUE: Final[AbstractContextManager[None]] = nullcontext()


class Dialect(ABC):
    """A database through one driver. Each engine has its own instance."""

    name: ClassVar[str]
    """SQLAlchemy's name of the database."""
    drivers: ClassVar[Mapping[str, str]]
    """Supported drivers, the default one first, each with the command that installs it."""
    is_server: ClassVar[bool]
    """Whether connections lead to a server, and can therefore break."""
    remembers_tables: ClassVar[bool] = False
    """Whether the server caches, per connection, each table that the connection has used."""
    identifier_limit: ClassVar[int | None]
    """Maximum length of a name in bytes; None without a limit."""
    has_schemas: ClassVar[bool]
    placeholder: ClassVar[str]
    takes_several_hosts: bool = False
    """Whether a URL may name several hosts, among which the driver finds the primary."""
    can_notify: ClassVar[bool]
    """Whether the database can wake subscribers in other processes."""
    max_event_bytes: ClassVar[int]
    """Maximum size of an event's state in bytes."""

    def __init__(self, driver: str) -> None:
        self.driver = driver

    def compatible_drivers(self) -> Sequence[str]:
        """Return the drivers whose connections can run statements rendered by this dialect."""
        return [self.driver]

    # -- engines and connections --

    def identity(self, url: URL) -> Hashable | None:
        """Return a key that is equal for URLs of one database; None if no other engine can reach it."""
        return url

    def is_created_by_connecting(self, url: URL) -> bool:
        """Return whether the database does not exist, and would be created by the first connection."""
        return False

    def outlives_connections(self, url: URL) -> bool:
        """Return whether the database persists without an open connection."""
        return True

    @abstractmethod
    def engine_options(self, url: URL, settings: EngineSettings) -> dict[str, Any]:
        """Return keyword arguments for ``create_engine``."""

    @abstractmethod
    def public_engine(self, engine: Engine) -> Engine:
        """Return an engine on the same pool with ordinary transactions, for sessions and users."""

    @abstractmethod
    def scratch(self, engine: Engine) -> AbstractContextManager[tuple[Connection, str | None]]:
        """Return a context with a connection whose default schema is new and empty, and the name of that schema.

        Nothing that is done on the connection remains after the context. ``engine`` is the public one.
        """

    def opened(self, connection: Any, *, keeps_encoding: bool) -> None:  # noqa: B027 (most databases need nothing here)
        """Set the value formats that the driver expects, before the first statement of a new DBAPI connection.

        Called for our own engines. ``keeps_encoding`` keeps the text encoding, because the user has chosen it.
        """

    @abstractmethod
    def connected(self, connection: Any, settings: EngineSettings) -> None:
        """Configure a new DBAPI connection of one of our own engines."""

    def is_behind_pooler(self, connection: Any) -> bool:
        """Return whether a DBAPI connection leads to a transaction pooler, such as PgBouncer."""
        return False

    @abstractmethod
    def is_stale(self, connection: Any) -> bool:
        """Return whether the server may have closed an idle connection. Needs no round trip; may err towards True."""

    @abstractmethod
    def in_transaction(self, connection: Any) -> bool:
        """Return whether a DBAPI connection is not idle. Needs no round trip."""

    @abstractmethod
    def remember(self, connection: Any, *, is_prepared: bool) -> Any:
        """Return a new connection's initial state, for :meth:`reset`.

        ``is_prepared`` means that a creator or a listener may have changed its settings.
        """

    @abstractmethod
    def reset(self, connection: Any, initial_state: Any) -> None:
        """End any transaction, and restore the settings in ``initial_state``, which a user may have changed.

        May raise any exception; the caller then closes the connection.
        """

    def checked_in(self, connection: Any) -> None:  # noqa: B027 (nothing to do, unless a dialect says otherwise)
        """Clean up a DBAPI connection of one of our own engines after SQLAlchemy's own reset."""

    @abstractmethod
    def rollback(self, connection: Any) -> None:
        """End a DBAPI connection's transaction, even one begun by a literal BEGIN."""

    @abstractmethod
    def autocommit(self, connection: Any) -> AbstractContextManager[None]:
        """Return a context in which a DBAPI connection of a user's engine is in autocommit mode."""

    def cursor(self, connection: Any) -> Any:
        """Return a cursor of a DBAPI connection."""
        return connection.cursor()

    def execute_once(self, cursor: Any, statement: str, parameters: Sequence[Any]) -> None:
        """Run a statement on a cursor without preparing it."""
        cursor.execute(statement, parameters)

    @abstractmethod
    def run_script(self, connection: Any, statements: Sequence[str]) -> None:
        """Run several statements on a DBAPI connection in one transaction, in one round trip if possible."""

    def check_exclusive(self, connection: Any) -> None:
        """Raise InterfaceError if a connection just checked out of a pool is already in a transaction."""
        if self.in_transaction(connection):
            msg = (
                "The engine's pool shares connections: it returned one that is in another user's transaction. "
                "Use a QueuePool, or a scoped session."
            )
            raise InterfaceError(msg)

    # -- transactions --

    begin_statement: ClassVar[str] = "BEGIN"

    def begin(self, executor: Executor, settings: EngineSettings) -> None:
        """Begin a transaction that this package commits itself."""
        executor.fetch(self.begin_statement)

    def writing(self, timeout: float) -> AbstractContextManager[Any]:
        """Return a context for a write transaction, in which threads queue if the database allows one writer only.

        ``timeout`` is in seconds.
        """
        return _NO_QUEUE

    @abstractmethod
    def session_options(self, *, commit: bool) -> dict[str, Any]:
        """Return SQLAlchemy's execution options for the connection of a session opened by this package."""

    @abstractmethod
    def session_began(self, connection: Connection, settings: EngineSettings) -> bool:
        """Configure a transaction opened for a user; return whether the server accepts writes."""

    def ensure_transaction(self, connection: Connection) -> None:  # noqa: B027 (most databases need nothing here)
        """Ensure that a user's session has begun a database transaction; raises ProgrammingError if it cannot."""

    # -- names, tables and values --

    @abstractmethod
    def default_schema(self, engine_default: str | None) -> str | None:
        """Return the default schema, given SQLAlchemy's; None if the database has no schemas."""

    @abstractmethod
    def render(self, table: TableName, *, parameters: bool = True) -> str:
        """Return the table's name as SQL; ``parameters`` tells whether the statement has parameters."""

    @abstractmethod
    def describe(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, TableShape]:
        """Return the shapes of the tables that exist."""

    @abstractmethod
    def describe_all(self, executor: Executor) -> dict[TableName, TableShape]:
        """Return the shapes of all tables whose names end like an application's, in one query."""

    reads_ahead: ClassVar[bool] = False
    """Whether reading all shapes costs little more than reading a few, and so saves round trips."""

    def schemas(self, executor: Executor, prefix: str) -> list[str]:
        """Return the schemas whose names start with a prefix; empty if the database has no schemas."""
        return []

    @abstractmethod
    def relations(self, executor: Executor, schema: str | None, prefix: str) -> list[tuple[RelationKind, str]]:
        """Return (kind, name) of a schema's tables, views and unowned sequences whose names start with a prefix."""

    @abstractmethod
    def relation_ids(self, executor: Executor, schema: str | None, prefix: str) -> dict[str, RelationId]:
        """Return the ids of the same relations as :meth:`relations`, by name, within a transaction."""

    @abstractmethod
    def server_version(self, executor: Executor) -> str:
        """Return the database's name and version, for messages."""

    @abstractmethod
    def missing_rights(self, executor: Executor, schemas: Sequence[str | None]) -> dict[Right, str]:
        """Return the rights that the role lacks on the database and in ``schemas``, each with its remedy."""

    @abstractmethod
    def create(self, executor: Executor, specs: Sequence[TableSpec], settings: EngineSettings) -> None:
        """Create missing tables and schemas atomically. Safe when many processes do so at once."""

    @abstractmethod
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
        """Return a recorder's event writer.

        ``ordered`` events have ids and a writer lock; snapshots have neither. With ``is_prepared``, the writer may rely
        on the configuration by :meth:`connected`.
        """

    @abstractmethod
    def bind_originator_id(self, originator_id_type: OriginatorIDType) -> Callable[[UUID | str], Any]:
        """Return a function from originator id to parameter, which raises DataError for an id of the wrong type."""

    def select_originator_id(self, originator_id_type: OriginatorIDType) -> str:
        """Return the SQL expression that selects an originator id."""
        return "originator_id"

    @abstractmethod
    def read_originator_id(self, originator_id_type: OriginatorIDType) -> Callable[[Any], UUID | str]:
        """Return a function from column value to originator id."""

    # -- id sequences --

    id_sequences: ClassVar[IdSequences]
    """Reads and advances the sequences of event ids."""

    # -- replacing tables --

    table_replacer: ClassVar[TableReplacer]
    """Replaces tables with others that were filled beside them."""

    # -- transfer --

    row_transfer: ClassVar[RowTransfer]
    """Reads and writes whole tables."""

    def load(self, connection: Any, statement: str, rows: bytes) -> None:  # noqa: B027 (not every database has a bulk format)
        """Run a statement that takes rows in the database's bulk format."""

    # -- wake-ups --

    notify_statement: ClassVar[str] = ""
    """Notifies when its transaction commits. Parameters: channel, payload."""
    notify_alone_statement: ClassVar[str] = ""
    """The same in its own transaction, which need not be durable when it ends."""

    def listen(self, connection: Any, channel: str) -> Listener | None:
        """Listen on a DBAPI connection, which the caller closes; None if it cannot receive wake-ups."""
        return None

    def watch(self, url: URL) -> Callable[[], Hashable] | None:
        """Return a cheap function whose result changes after every commit by any process; None if not available."""
        return None

    # -- errors --

    remedies: ClassVar[Mapping[str, str]] = {}
    """Remedies by SQLSTATE. The datastore prefixes the object."""
