"""The two ways to run the same statements: on a cursor of our own, and on a session's connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import NotSupportedError
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.dialects import dialect_of
from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.protocols import Executor

__all__ = ["ConnectionExecutor", "CursorExecutor", "connection_of"]


class CursorExecutor(Executor):
    """Runs SQL on a cursor of the driver."""

    __slots__ = ("_connection", "_cursor", "_dialect")

    def __init__(self, dialect: Dialect, connection: Any) -> None:
        self._dialect = dialect
        self._connection = connection
        self._cursor = dialect.cursor(connection)

    def fetch(self, statement: str, parameters: Sequence[Any] = (), *, prepare: bool = True) -> Sequence[Sequence[Any]]:
        if not prepare:
            self._dialect.execute_once(self._cursor, statement, parameters)
        elif parameters:
            self._cursor.execute(statement, parameters)
        else:
            self._cursor.execute(statement)
        return self._cursor.fetchall() if self._cursor.description else ()

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._cursor.executemany(statement, rows)

    def run_script(self, statements: Sequence[str]) -> None:
        self._dialect.run_script(self._connection, statements)

    def load(self, statement: str, rows: bytes) -> None:
        self._dialect.load(self._connection, statement, rows)


class ConnectionExecutor(Executor):
    """Runs SQL on the connection of a session."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def fetch(self, statement: str, parameters: Sequence[Any] = (), *, prepare: bool = True) -> Sequence[Sequence[Any]]:
        if parameters:
            result = self._connection.exec_driver_sql(statement, tuple(parameters))
        else:
            # Drivers that receive empty parameters would read a % in a name as a placeholder.
            result = self._connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        return result.fetchall() if result.returns_rows else ()

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._connection.exec_driver_sql(statement, [tuple(row) for row in rows])

    def run_script(self, statements: Sequence[str]) -> None:
        for statement in statements:
            self.fetch(statement)

    def load(self, statement: str, rows: bytes) -> None:
        dialect_of(self._connection.dialect).load(self._connection.connection.dbapi_connection, statement, rows)


def connection_of(session: Session, ours: Dialect) -> Connection:
    """Return the connection of a session; raises NotSupportedError when its driver does not run the statements of our
    dialect.
    """
    theirs = session.get_bind().dialect
    drivers = ours.compatible_drivers()
    if theirs.name != ours.name or theirs.driver not in drivers or theirs.is_async:
        driver = f"{'the asynchronous ' if theirs.is_async else ''}{theirs.name}+{theirs.driver}"
        msg = (
            f"The session uses {driver}, and the application writes statements for "
            f"{ours.name}+{ours.driver}. Pass a session whose engine uses {ours.name}+{' or '.join(drivers)}. In "
            "asynchronous code, call the application in a thread instead: await asyncio.to_thread(...)."
        )
        raise NotSupportedError(msg)
    return session.connection()
