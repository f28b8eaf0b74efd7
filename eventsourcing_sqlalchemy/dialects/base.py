"""What a database must answer for the rest of the package to use it. Capabilities are asked, names are never
compared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar
from uuid import UUID

from eventsourcing.persistence import InterfaceError
from sqlalchemy.engine import URL, Connection, Engine

from eventsourcing_sqlalchemy.dialects.protocols import (
    EventWriter,
    Executor,
    IdSequences,
    Listener,
    RelationKind,
    Right,
)
from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.options import EngineSettings, OriginatorIDType
from eventsourcing_sqlalchemy.tables import TableShape, TableSpec

__all__ = ["Dialect"]


class Dialect(ABC):
    """The capabilities of a database through one driver. One object for each engine."""

    name: ClassVar[str]
    """What SQLAlchemy calls the database."""
    drivers: ClassVar[Mapping[str, str]]
    """The drivers that work, the default one first, each with the command that installs it."""
    is_server: ClassVar[bool]
    """Whether there is a connection to a server, which can break."""
    remembers_tables: ClassVar[bool] = False
    """Whether a connection costs the server memory for each table that it has ever used."""
    identifier_limit: ClassVar[int | None]
    """The most bytes that a name may have; None without a limit."""
    has_schemas: ClassVar[bool]
    placeholder: ClassVar[str]
    takes_several_hosts: bool = False
    """Whether a URL may name several servers, of which the driver finds the one that takes writes."""
    can_notify: ClassVar[bool]
    """Whether a process can wake subscribers in other processes."""
    max_event_bytes: ClassVar[int]
    """The largest state of one event that can be written and read again."""

    def __init__(self, driver: str) -> None:
        self.driver = driver

    def compatible_drivers(self) -> Sequence[str]:
        """Return the drivers whose connections run the statements that are rendered here."""
        return [self.driver]

    # -- engines and connections --

    def identity(self, url: URL) -> Hashable | None:
        """Return what two URLs have in common when they mean the same database, or None for one that nobody else can
        reach.
        """
        return url

    def outlives_connections(self, url: URL) -> bool:
        """Return whether the database is there when no connection is."""
        return True

    @abstractmethod
    def engine_options(self, url: URL, settings: EngineSettings) -> dict[str, Any]:
        """Return the keyword arguments of ``create_engine``."""

    @abstractmethod
    def public_engine(self, engine: Engine) -> Engine:
        """Return an engine on the same pool with real transactions, for sessions and for users."""

    def opened(self, connection: Any, *, keeps_encoding: bool) -> None:  # noqa: B027 (most databases need nothing here)
        """Agree with the server on forms of values that the driver reads, before anything is run on a new DBAPI
        connection of an engine that is ours; ``keeps_encoding`` means that the user has chosen one for texts.
        """

    @abstractmethod
    def connected(self, connection: Any, settings: EngineSettings) -> None:
        """Prepare a new DBAPI connection of an engine that is ours."""

    def is_behind_pooler(self, connection: Any) -> bool:
        """Return whether a DBAPI connection leads to a pooler that gives each transaction another server process."""
        return False

    @abstractmethod
    def is_stale(self, connection: Any) -> bool:
        """Return whether an idle connection seems to be closed by the server; costs no round trip, and may err
        towards True.
        """

    @abstractmethod
    def in_transaction(self, connection: Any) -> bool:
        """Return whether a DBAPI connection is anything but idle; looks at memory only."""

    @abstractmethod
    def remember(self, connection: Any, *, is_prepared: bool) -> Any:
        """Return what :func:`reset` has to know of a new connection; ``is_prepared`` means that a creator or a listener
        may have changed settings of it.
        """

    @abstractmethod
    def reset(self, connection: Any, as_new: Any) -> None:
        """End any transaction and undo every setting that a user may have left on a DBAPI connection; those that its
        driver, a creator or a listener made are in force again.

        Raises any exception when that is not possible; the connection is then closed.
        """

    def checked_in(self, connection: Any) -> None:  # noqa: B027 (nothing to do, unless a dialect says otherwise)
        """Look at a DBAPI connection of an engine that is ours when SQLAlchemy, too, is done with it."""

    @abstractmethod
    def rollback(self, connection: Any) -> None:
        """End the transaction of a DBAPI connection, also one that was begun behind the driver's back."""

    @abstractmethod
    def autocommit(self, connection: Any) -> AbstractContextManager[None]:
        """Return a context in which a DBAPI connection of a foreign engine commits each statement by itself."""

    def after_fork(self) -> None:  # noqa: B027 (most have nothing to forget)
        """Forget, in a child process, which locks the threads of the parent held."""

    def cursor(self, connection: Any) -> Any:
        """Return a cursor of a DBAPI connection."""
        return connection.cursor()

    def execute_once(self, cursor: Any, statement: str, parameters: Sequence[Any]) -> None:
        """Run a statement on a cursor without preparing it."""
        cursor.execute(statement, parameters)

    @abstractmethod
    def run_script(self, connection: Any, statements: Sequence[str]) -> None:
        """Run several statements on a DBAPI connection in one transaction, and in one round trip if it can."""

    def check_exclusive(self, connection: Any) -> None:
        """Raise InterfaceError when a connection just checked out of a pool is in a transaction, which must then be
        somebody else's.
        """
        if self.in_transaction(connection):
            msg = (
                "The engine handed out a connection that is in a transaction of another user: its pool shares "
                "connections. Use a QueuePool, or a scoped session."
            )
            raise InterfaceError(msg)

    # -- transactions --

    begin_statement: ClassVar[str] = "BEGIN"

    def begin(self, executor: Executor, settings: EngineSettings) -> None:
        """Begin a transaction that we commit ourselves."""
        executor.fetch(self.begin_statement)

    def writing(self, timeout: float) -> AbstractContextManager[Any]:
        """Return a context for a write transaction; where a database allows one writer at a time, its threads queue
        here.
        """
        return nullcontext()

    @abstractmethod
    def session_options(self, *, commit: bool) -> dict[str, Any]:
        """Return SQLAlchemy's execution options for the connection of a session that we open."""

    @abstractmethod
    def session_began(self, connection: Connection, settings: EngineSettings) -> bool:
        """Prepare a transaction that we opened for a user; return whether the server takes writes."""

    def ensure_transaction(self, connection: Connection) -> None:  # noqa: B027 (most databases need nothing here)
        """Make sure that a session that the user opened has really begun a transaction in the database."""

    # -- names, tables and values --

    @abstractmethod
    def default_schema(self, engine_default: str | None) -> str | None:
        """Return the schema of tables for which none is set, given what SQLAlchemy found; None where the database
        has no schemas.
        """

    @abstractmethod
    def render(self, table: TableName, *, parameters: bool = True) -> str:
        """Return the name for a statement; ``parameters`` tells whether the statement is run with any."""

    @abstractmethod
    def describe(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, TableShape]:
        """Return the shapes of those tables that exist."""

    @abstractmethod
    def describe_all(self, executor: Executor) -> dict[TableName, TableShape]:
        """Return the shapes of all tables that could be an application's, by the ends of their names; one query."""

    reads_ahead: ClassVar[bool] = False
    """Whether the shapes of all tables are had for little more than those of a few, which saves round trips."""

    def schemas(self, executor: Executor, prefix: str) -> list[str]:
        """Return the names of the schemas that begin with a prefix; none where the database has no schemas."""
        return []

    @abstractmethod
    def relations(self, executor: Executor, schema: str | None, prefix: str) -> list[tuple[RelationKind, str]]:
        """Return what has rows in a schema and begins with a prefix; no sequences that belong to a table."""

    @abstractmethod
    def server_version(self, executor: Executor) -> str:
        """Return the name of the database with its version; raises an error when it does not answer."""

    @abstractmethod
    def missing_rights(self, executor: Executor, schemas: Sequence[str | None]) -> dict[Right, str]:
        """Return which rights the role of the connection lacks, in general and on the tables in some schemas, each with
        what gives them.
        """

    @abstractmethod
    def create(self, executor: Executor, specs: Sequence[TableSpec], settings: EngineSettings) -> None:
        """Make tables, and their schemas, that do not exist, all or none; safe when many processes do so at once."""

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
        """Return the writer for a recorder; ``ordered`` events have ids and a writer lock, others (snapshots) have
        neither. It may rely on what :func:`connected` did if ``is_prepared``.
        """

    @abstractmethod
    def bind_originator_id(self, originator_id_type: OriginatorIDType) -> Callable[[UUID | str], Any]:
        """Return what turns an originator id into a parameter; it raises DataError for an id of the other type."""

    def select_originator_id(self, originator_id_type: OriginatorIDType) -> str:
        """Return the expression that selects an originator id."""
        return "originator_id"

    @abstractmethod
    def read_originator_id(self, originator_id_type: OriginatorIDType) -> Callable[[Any], UUID | str]:
        """Return what turns a column into an originator id."""

    # -- how far tables are --

    id_sequences: ClassVar[IdSequences]
    """What counts the ids of its tables."""

    # -- wake-ups --

    notify_statement: ClassVar[str] = ""
    """Notifies when the transaction commits that it is run in. Parameters: channel, payload."""
    notify_alone_statement: ClassVar[str] = ""
    """The same for a transaction of its own, which need not be on the disk when it ends."""

    def listen(self, connection: Any, channel: str) -> Listener | None:
        """Start to listen on a DBAPI connection, which the caller closes; None when wake-ups cannot be heard through
        it.
        """
        return None

    def watch(self, url: URL) -> Callable[[], Hashable] | None:
        """Return a function whose result changes when anybody has committed, and which costs next to nothing; None
        where there is none.
        """
        return None

    # -- errors --

    remedies: ClassVar[Mapping[str, str]] = {}
    """What to do about an error, by SQLSTATE; completed by the datastore with the object that it is about."""
