"""How statements of ours run on a connection of psycopg: past its cursor, which takes longer for a statement than the
server does to find ten rows.

What is left is what the driver itself is made of: its libpq sends, the connection waits (and cancels what is
interrupted), its transformer makes the rows and its errors are raised. Whatever is not plain runs on a cursor of the
driver, see :meth:`PsycopgCursor.execute`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult

from eventsourcing_sqlalchemy.dialects.postgresql_arrays import BINARY_ARRAYS
from eventsourcing_sqlalchemy.dialects.postgresql_prepared import (
    MISSING,
    TRY_PLAIN,
    TRY_TYPED,
    PreparedStatements,
    numbered,
)

try:
    from psycopg.errors import error_from_result
    from psycopg.generators import execute as results_of
except ImportError:  # they are elsewhere in a later version: everything runs on cursors
    results_of = None

__all__ = ["PsycopgCursor"]

_AS_THEY_ARE: Final = frozenset({bytes, *BINARY_ARRAYS})
_FINE: Final = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY})


class PsycopgCursor:
    """Runs statements on a connection that nobody else uses; without ``statements`` it is not ours."""

    __slots__ = ("_connection", "_result", "_statements")

    def __init__(self, connection: psycopg.Connection[Any], statements: PreparedStatements | None) -> None:
        self._connection = connection
        self._statements = statements
        self._result: PGresult | None = None

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement; one with parameters is prepared when it is run for the sixth time outside of a transaction.

        On a cursor of the driver where the connection is not ours, has no autocommit, another encoding than UTF-8 or a
        class of cursors that somebody has set; where a parameter is neither a str without NUL nor an int nor bytes; and
        where the server infers another type for a parameter than the driver gives it, and fails.
        """
        packed = None if self._statements is None else self._packed(parameters)
        if self._statements is None or packed is None:
            # The driver prepares by names that another client may have given to another statement, through a pooler.
            self._run_on_cursor(query, parameters, prepare=None if self._statements is None else False)
            return
        self._result = None
        pgconn = self._connection.pgconn
        values, formats = packed
        # In a transaction, a statement that the server has forgotten would end it.
        is_idle = pgconn.transaction_status == TransactionStatus.IDLE
        prepare, prepared = self._statements.find(query) if is_idle and values else ("", None)
        try:
            if prepare:
                self._run(pgconn.send_query, prepare.encode())
            if prepared is not None:
                name = prepared.name.encode()
                self._result = self._run(pgconn.send_query_prepared, name, values, formats, Format.BINARY)
            else:
                body = numbered(query) if values else query
                self._result = self._run(pgconn.send_query_params, body.encode(), values, None, formats, Format.BINARY)
        except psycopg.Error as error:
            if not is_idle or error.sqlstate not in (TRY_TYPED if prepared is None else TRY_PLAIN):
                raise
            # Nothing has been run.
            discarded = self._statements.discard(query)
            if discarded and error.sqlstate != MISSING:
                with suppress(psycopg.Error):  # it may not be there
                    self._run(pgconn.send_query, f"DEALLOCATE {discarded}".encode())
            self._run_on_cursor(query, parameters, prepare=False)

    def execute_once(self, query: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement on a cursor of the driver, without preparing it."""
        self._run_on_cursor(query, parameters, prepare=False)

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement without results once for each row of parameters."""
        self._result = None
        self._connection.cursor().executemany(query, rows)

    def rows(self) -> Sequence[Sequence[Any]]:
        """Return the rows of the statement that was run last, or an empty sequence when it returns none."""
        result = self._result
        if result is None or result.status != ExecStatus.TUPLES_OK:
            return ()
        transformer = Transformer(self._connection)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    def _run_on_cursor(self, query: str, parameters: Sequence[Any], *, prepare: bool | None) -> None:
        self._result = None
        cursor = self._connection.cursor(binary=True)
        self._result = cursor.execute(query, parameters or None, prepare=prepare).pgresult

    def _packed(self, parameters: Sequence[Any]) -> tuple[list[bytes | None], list[int]] | None:
        """Return values and formats of parameters, whose types the server infers; None when a cursor is needed."""
        connection = self._connection
        if (
            results_of is None
            or not connection.autocommit
            or connection.cursor_factory is not psycopg.Cursor
            or connection.pgconn.parameter_status(b"client_encoding") != b"UTF8"
        ):
            return None
        values: list[bytes | None] = []
        formats: list[int] = []
        for parameter in parameters:
            cls = type(parameter)
            if cls is str:
                if "\0" in parameter:
                    return None
                values.append(parameter.encode())
                formats.append(Format.TEXT)
            elif cls is int:
                values.append(b"%d" % parameter)
                formats.append(Format.TEXT)
            elif cls in _AS_THEY_ARE:
                values.append(parameter)
                formats.append(Format.BINARY)
            else:
                return None
        return values, formats

    def _run(self, send: Callable[..., None], *arguments: Any) -> PGresult:
        """Send something and return its last result; raises the driver's error."""
        connection = self._connection
        send(*arguments)
        results: list[PGresult] = connection.wait(results_of(connection.pgconn))
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise error_from_result(result, encoding=connection.info.encoding)
        if not results or results[-1].status not in _FINE:
            msg = "The server's answer is not one to a statement of ours."
            raise psycopg.InternalError(msg)
        return results[-1]
