"""Differences between PostgreSQL drivers: connection state, sockets, notifications, prepared statements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast
from weakref import WeakKeyDictionary

from eventsourcing.persistence import ProgrammingError

from eventsourcing_sqlalchemy.dialects.postgresql.arrays import BINARY_ARRAYS, BinaryArray, transcode
from eventsourcing_sqlalchemy.dialects.postgresql.prepared import PreparedStatements, preparing_cursor
from eventsourcing_sqlalchemy.dialects.protocols import Listener

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.dialects.postgresql.psycopg_cursor import PsycopgCursor

__all__ = ["Driver", "DriverListener", "driver_for"]


# Attributes of a psycopg connection that a user may set and SQLAlchemy does not restore.
_PSYCOPG_ATTRIBUTES: Final = ("cursor_factory", "row_factory", "prepare_threshold", "read_only", "deferrable")

_BYTEA: Final = 17  # the type's oid


class Driver:
    """A PEP 249 driver with the attribute ``autocommit``. Subclasses add capabilities."""

    takes_several_hosts: ClassVar[bool] = True
    """Whether ``connect()`` accepts several hosts and finds the primary, as libpq does."""
    can_listen: ClassVar[bool] = False
    prepares: ClassVar[bool] = False
    """Whether the driver supports server-side prepared statements."""
    takes_binary_arrays: ClassVar[bool] = False
    """Whether a connection accepts a :class:`BinaryArray` after :meth:`connected`."""
    reads_uuids: ClassVar[bool] = False
    """Whether uuid columns are returned as UUID, and fast."""
    probes_hstore: ClassVar[bool] = False
    """Whether SQLAlchemy probes each new connection for the extension hstore by default."""
    escapes_percent_in_quotes: ClassVar[bool] = True
    """Whether a ``%`` inside a quoted name must be doubled in a statement with parameters."""
    splits_statements: ClassVar[bool] = False
    """Whether, outside a transaction, a statement and its parameters are sent as two transactions.

    Behind a pooler they may reach different server processes, where the parameters meet another client's statement.
    """

    def connect_arguments(self, connect_timeout: float | None) -> dict[str, Any]:
        """Return the arguments of ``connect()``: text encoding, and timeout in seconds."""
        arguments: dict[str, Any] = {"client_encoding": "utf8"}
        if connect_timeout:
            # libpq accepts whole seconds, and treats 1 as 2.
            arguments["connect_timeout"] = max(1, round(connect_timeout))
        return arguments

    def connected(self, connection: Any, connect_timeout: float) -> None:
        """Lift the connect timeout if it would apply to statements too, and register type adapters."""

    def fileno(self, connection: Any) -> int | None:
        """Return the socket's file descriptor, or None if the driver does not expose it."""
        return None

    def is_idle(self, connection: Any) -> bool:
        """Return whether no transaction is open and no statement is running."""
        raise NotImplementedError

    def backend_pid(self, connection: Any) -> int | None:
        """Return the process id that the server, or a pooler, announced on connecting; None if unknown."""
        return None

    def prepare(self, connection: Any, mode: Literal["on", "off"]) -> None:
        """Switch prepared statements on or off."""

    def cursor(self, connection: Any) -> Any:
        """Return a cursor, in binary format if the driver supports it."""
        return connection.cursor()

    def execute_once(self, cursor: Any, statement: str, parameters: Sequence[Any]) -> None:
        """Run a statement on a cursor from :meth:`cursor` without preparing it."""
        cursor.execute(statement, parameters)

    def parameter(self, connection: Any, name: str) -> str | None:
        """Return a setting that the server reports by itself. Needs no round trip."""
        raise NotImplementedError

    def use_utf8(self, connection: Any) -> None:
        """Set the client encoding to UTF-8, outside a transaction."""
        self.run_script(connection, "SET client_encoding TO 'UTF8'")

    def remember(self, connection: Any) -> Any:
        """Return the attributes of a new connection that :meth:`reset` restores; None if it restores none."""
        return None

    def reset(self, connection: Any, initial_state: Any) -> None:
        """Restore the attributes of an idle connection object that a user may have set; may raise any exception."""

    def run_script(self, connection: Any, script: str) -> None:
        """Run several statements without results and without preparing them."""
        cursor = connection.cursor()
        cursor.execute(script)
        cursor.close()

    def notifications(self, connection: Any) -> list[str]:
        """Return the payloads that have arrived on a connection whose socket is readable."""
        raise NotImplementedError


class Psycopg2(Driver):
    can_listen = True
    prepares = True
    probes_hstore = True

    def __init__(self) -> None:
        self._prepared: WeakKeyDictionary[Any, PreparedStatements] = WeakKeyDictionary()

    def prepare(self, connection: Any, mode: Literal["on", "off"]) -> None:
        if mode == "on":
            self._prepared[connection] = PreparedStatements()

    def cursor(self, connection: Any) -> Any:
        statements = self._prepared.get(connection)
        if statements is None:
            return connection.cursor()
        cursor = connection.cursor(cursor_factory=preparing_cursor())
        cursor.statements = statements
        return cursor

    def execute_once(self, cursor: Any, statement: str, parameters: Sequence[Any]) -> None:
        getattr(cursor, "execute_once", cursor.execute)(statement, parameters or None)

    def fileno(self, connection: Any) -> int | None:
        return int(connection.fileno())

    def is_idle(self, connection: Any) -> bool:
        return bool(connection.get_transaction_status() == 0)

    def backend_pid(self, connection: Any) -> int | None:
        return int(connection.info.backend_pid)

    def parameter(self, connection: Any, name: str) -> str | None:
        value: str | None = connection.info.parameter_status(name)
        return value

    def use_utf8(self, connection: Any) -> None:
        connection.set_client_encoding("UTF8")  # unlike SET, it updates the driver's state

    def remember(self, connection: Any) -> tuple[Any, ...]:
        return connection.encoding, connection.cursor_factory, connection.readonly, connection.deferrable

    def reset(self, connection: Any, initial_state: tuple[Any, ...]) -> None:
        encoding, connection.cursor_factory, *modes = initial_state
        if connection.encoding != encoding:
            connection.set_client_encoding(encoding)
        if [connection.readonly, connection.deferrable] != modes:
            readonly, deferrable = ("DEFAULT" if mode is None else mode for mode in modes)
            connection.set_session(readonly=readonly, deferrable=deferrable)

    def notifications(self, connection: Any) -> list[str]:
        connection.poll()
        payloads = [notify.payload for notify in connection.notifies]
        connection.notifies.clear()
        return payloads


class Psycopg(Driver):
    can_listen = True
    prepares = True
    takes_binary_arrays = True
    reads_uuids = True

    def __init__(self) -> None:
        self._statements: WeakKeyDictionary[Any, PreparedStatements] = WeakKeyDictionary()

    def connected(self, connection: Any, connect_timeout: float) -> None:
        from psycopg import Connection  # noqa: PLC0415 (the driver is an extra)

        for cls, dumper in _binary_dumpers():
            connection.adapters.register_dumper(cls, dumper)
        if type(connection) is Connection:
            self._statements[connection] = PreparedStatements(is_on=False)

    def fileno(self, connection: Any) -> int | None:
        return int(connection.fileno())

    def is_idle(self, connection: Any) -> bool:
        return bool(connection.pgconn.transaction_status == 0)

    def backend_pid(self, connection: Any) -> int | None:
        return int(connection.info.backend_pid)

    def prepare(self, connection: Any, mode: Literal["on", "off"]) -> None:
        # For users' own statements: the driver prepares a statement on its sixth run, its default; None disables this.
        connection.prepare_threshold = 5 if mode == "on" else None
        if connection in self._statements:
            self._statements[connection] = PreparedStatements(is_on=mode == "on")

    def cursor(self, connection: Any) -> Any:
        _check_pipeline(connection)
        return _psycopg_cursor()(connection, self._statements.get(connection))

    def execute_once(self, cursor: Any, statement: str, parameters: Sequence[Any]) -> None:
        cursor.execute_once(statement, parameters)

    def parameter(self, connection: Any, name: str) -> str | None:
        value: str | None = connection.info.parameter_status(name)
        return value

    def remember(self, connection: Any) -> tuple[Any, ...]:
        return tuple(getattr(connection, name) for name in _PSYCOPG_ATTRIBUTES)

    def reset(self, connection: Any, initial_state: tuple[Any, ...]) -> None:
        _check_pipeline(connection)
        for name, value in zip(_PSYCOPG_ATTRIBUTES, initial_state, strict=True):
            setattr(connection, name, value)

    def run_script(self, connection: Any, script: str) -> None:
        connection.execute(script, prepare=False)

    def notifications(self, connection: Any) -> list[str]:
        return [notify.payload for notify in connection.notifies(timeout=0)]


class Pg8000(Driver):
    takes_several_hosts = False
    escapes_percent_in_quotes = False
    splits_statements = True

    def connect_arguments(self, connect_timeout: float | None) -> dict[str, Any]:
        return {"timeout": connect_timeout} if connect_timeout else {}

    def connected(self, connection: Any, connect_timeout: float) -> None:
        # Keep any other timeout: the user has set it.
        if connection._usock.gettimeout() == connect_timeout:  # noqa: SLF001 (no public API)
            connection._usock.settimeout(None)  # noqa: SLF001 (as above)
        connection.register_in_adapter(_BYTEA, parse_bytea)

    def fileno(self, connection: Any) -> int | None:
        return int(connection._usock.fileno())  # noqa: SLF001 (no public API)

    def is_idle(self, connection: Any) -> bool:
        # None before the first statement.
        return connection._transaction_status in (None, b"I")  # noqa: SLF001 (no public API)

    def backend_pid(self, connection: Any) -> int | None:
        # Process id and secret key. A pooler may announce none, which yields 0.
        return int.from_bytes((connection._backend_key_data or b"")[:4], "big")  # noqa: SLF001 (as above)

    def parameter(self, connection: Any, name: str) -> str | None:
        value: str | None = connection.parameter_statuses.get(name)
        return value


class DriverListener(Listener):
    """A listening connection; see :class:`Listener`."""

    def __init__(self, connection: Any, driver: Driver) -> None:
        self._connection = connection
        self._driver = driver

    def fileno(self) -> int:
        return int(self._connection.fileno())

    def receive(self) -> list[str]:
        payloads = self._driver.notifications(self._connection)
        if not payloads:
            # A dead server makes the socket readable, and only a statement reports the error.
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            payloads = self._driver.notifications(self._connection)
        return payloads


def parse_bytea(text: str) -> bytes:
    """Parse a bytea in either format of ``bytea_output``."""
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    return re.sub(rb"\\([0-7]{3}|\\)", _unescape, text.encode("ascii"))


def _unescape(match: re.Match[bytes]) -> bytes:
    escaped = match[1]
    return escaped if escaped == b"\\" else bytes([int(escaped, 8)])


def _check_pipeline(connection: Any) -> None:
    if connection.pgconn.pipeline_status:
        msg = (
            "The connection is in pipeline mode, where results arrive too late. Leave the pipeline before returning it."
        )
        raise ProgrammingError(msg)


@cache
def _psycopg_cursor() -> type[PsycopgCursor]:
    from eventsourcing_sqlalchemy.dialects.postgresql.psycopg_cursor import PsycopgCursor  # noqa: PLC0415 (as above)

    return PsycopgCursor


@cache
def _binary_dumpers() -> tuple[tuple[type[BinaryArray], type[Any]], ...]:
    from psycopg import adapt, pq  # noqa: PLC0415 (the driver is an extra)

    class Unchanged(adapt.Dumper):
        format = pq.Format.BINARY

        def dump(self, obj: Any) -> bytes:
            return cast("bytes", obj)

    class Transcoded(Unchanged):
        def dump(self, obj: Any) -> bytes:
            encoding = self.connection.info.encoding if self.connection else "utf-8"
            return cast("bytes", obj) if encoding == "utf-8" else transcode(obj, encoding)

    return tuple(
        (cls, type(cls.__name__, (Transcoded if cls.holds_text else Unchanged,), {"oid": cls.oid}))
        for cls in BINARY_ARRAYS
    )


_DRIVERS: dict[str, type[Driver]] = {"psycopg2": Psycopg2, "psycopg": Psycopg, "pg8000": Pg8000}


def driver_for(name: str) -> Driver:
    """Return the driver by SQLAlchemy's name."""
    return _DRIVERS[name]()
