"""How statements of ours run on a connection of psycopg: past its cursor, which takes longer for a statement than the
server does to find ten rows.

What is left is what the driver itself is made of: its libpq sends, the connection waits (and cancels what is
interrupted), its transformer makes the rows and its errors are raised. Whatever is not plain goes to a cursor of the
driver: parameters of other types, other encodings, connections that somebody has wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from eventsourcing_sqlalchemy.dialects.postgresql_arrays import BINARY_ARRAYS
from eventsourcing_sqlalchemy.dialects.postgresql_prepared import TRY_PLAIN, PreparedStatements, numbered

if TYPE_CHECKING:
    from psycopg import Connection, Cursor
    from psycopg.pq.abc import PGresult

__all__ = ["PsycopgCursor"]

_TEXT, _BINARY = 0, 1
_IDLE: Final = 0  # psycopg.pq.TransactionStatus
_ROWS: Final = 2  # psycopg.pq.ExecStatus
_ERROR: Final = 7
_AS_THEY_ARE: Final = frozenset({bytes, *BINARY_ARRAYS})


class PsycopgCursor:
    """Runs statements on a connection; without ``statements`` it is not ours, and they run on a cursor only."""

    __slots__ = ("_connection", "_cursor", "_result", "_statements")

    def __init__(self, connection: Connection[Any], statements: PreparedStatements | None) -> None:
        self._connection = connection
        self._statements = statements
        self._result: PGresult | None = None
        self._cursor: Cursor[Any] | None = None

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement; it is prepared when it is run for the sixth time."""
        packed = None if self._statements is None else self._packed(parameters)
        if self._statements is None or packed is None:
            self._run_on_cursor(query, parameters)
            return
        pgconn = self._connection.pgconn
        values, formats = packed
        # In a transaction, a statement that the server has forgotten would end it.
        is_idle = pgconn.transaction_status == _IDLE
        prepare, prepared = self._statements.find(query) if is_idle and values else ("", None)
        try:
            if prepare:
                self._run(pgconn.send_query, prepare.encode())
            if prepared is not None:
                self._result = self._run(pgconn.send_query_prepared, prepared.name.encode(), values, formats, _BINARY)
            else:
                body = numbered(query).body if values else query
                self._result = self._run(pgconn.send_query_params, body.encode(), values, None, formats, _BINARY)
        except _psycopg().Error as error:
            if not is_idle or error.sqlstate not in TRY_PLAIN:
                raise
            # Nothing has been run.
            if prepared is not None:
                name = self._statements.discard(query)
                with suppress(_psycopg().Error):  # it may not be there
                    self._run(pgconn.send_query, f"DEALLOCATE {name}".encode())
            self.execute_once(query, parameters)

    def _packed(self, parameters: Sequence[Any]) -> tuple[list[bytes | None], list[int]] | None:
        """Return the values and formats of parameters whose types the server infers, or None for others."""
        connection = self._connection
        if not connection.autocommit or connection.pgconn.parameter_status(b"client_encoding") != b"UTF8":
            return None
        values: list[bytes | None] = []
        formats: list[int] = []
        for parameter in parameters:
            cls = type(parameter)
            if cls is str:
                if "\0" in parameter:
                    return None
                values.append(parameter.encode())
                formats.append(_TEXT)
            elif cls is int:
                values.append(b"%d" % parameter)
                formats.append(_TEXT)
            elif cls in _AS_THEY_ARE:
                values.append(parameter)
                formats.append(_BINARY)
            else:
                return None
        return values, formats

    def _run(self, send: Callable[..., None], *arguments: Any) -> PGresult:
        """Send something and return its last result; raises the driver's error."""
        psycopg, connection = _psycopg(), self._connection
        send(*arguments)
        results: list[PGresult] = connection.wait(psycopg.execute(connection.pgconn))
        for result in results:
            if result.status == _ERROR:
                raise psycopg.error_from_result(result, encoding=connection.info.encoding)
        if not results:
            msg = "The server sent no result."
            raise psycopg.InternalError(msg)
        return results[-1]

    def rows(self) -> Sequence[Sequence[Any]]:
        """Return the rows of the statement that was run last, or an empty sequence when it returns none."""
        result = self._result
        if result is None:
            # Its attribute `description` would make an object for each column.
            cursor = self._driver_cursor()
            return cursor.fetchall() if cursor.pgresult is not None and cursor.pgresult.nfields else ()
        if result.status != _ROWS:
            return ()
        transformer = _psycopg().Transformer(self._connection)
        transformer.set_pgresult(result)
        rows: list[tuple[Any, ...]] = transformer.load_rows(0, result.ntuples, tuple)
        return rows

    # -- on a cursor of the driver --

    def execute_once(self, query: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement without preparing it."""
        self._run_on_cursor(query, parameters, prepare=False)

    def _run_on_cursor(self, query: str, parameters: Sequence[Any], *, prepare: bool | None = None) -> None:
        self._result = None
        self._driver_cursor().execute(query, parameters or None, prepare=prepare)

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""
        self._result = None
        self._driver_cursor().executemany(query, rows)

    def _driver_cursor(self) -> Cursor[Any]:
        if self._cursor is None:
            self._cursor = self._connection.cursor(binary=True)
        return self._cursor


@cache
def _psycopg() -> Any:
    """Return what is used of the driver, which only those need who use it."""
    from psycopg import Error, InternalError  # noqa: PLC0415 (as above)
    from psycopg.adapt import Transformer  # noqa: PLC0415 (as above)
    from psycopg.errors import error_from_result  # noqa: PLC0415 (as above)
    from psycopg.generators import execute  # noqa: PLC0415 (as above)

    return SimpleNamespace(
        Error=Error,
        InternalError=InternalError,
        Transformer=Transformer,
        error_from_result=error_from_result,
        execute=execute,
    )
