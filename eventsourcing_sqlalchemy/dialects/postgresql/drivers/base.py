"""The base class of PostgreSQL drivers, and their listener."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from eventsourcing_sqlalchemy.dialects.protocols import Listener

__all__ = ["Driver", "DriverListener"]


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

    def load(self, connection: Any, statement: str, rows: bytes) -> None:
        """Run a COPY FROM STDIN with rows."""
        raise NotImplementedError

    def notifications(self, connection: Any) -> list[str]:
        """Return the payloads that have arrived on a connection whose socket is readable."""
        raise NotImplementedError


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
