"""Run this package's statements on psycopg connections without psycopg's cursor.

The cursor takes longer per statement than the server takes to find ten rows. This one uses the driver's own parts: its
libpq sends, the connection waits and cancels on interrupts, its transformer builds the rows, and its errors are raised.
All but plain statements fall back to the driver's cursor; see :meth:`PsycopgCursor.execute`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult

from eventsourcing_sqlalchemy.dialects.postgresql.arrays import BINARY_ARRAYS
from eventsourcing_sqlalchemy.dialects.postgresql.prepared import (
    MISSING,
    RETRY_TYPED,
    RETRY_UNPREPARED,
    PreparedStatements,
    numbered,
)

try:
    from psycopg.errors import error_from_result
    from psycopg.generators import fetch, send
except ImportError:  # a later version moved them: use the driver's cursor for everything
    fetch = None

__all__ = ["PsycopgCursor"]

_BINARY_TYPES: Final = frozenset({bytes, *BINARY_ARRAYS})
# Rows per chunk, built while the server sends more. Older versions of libpq wait for all rows.
_CHUNK: Final = 200
_HAS_CHUNKS: Final = psycopg.capabilities.has_stream_chunked()
_ROWS: Final = frozenset({ExecStatus.TUPLES_OK, ExecStatus.TUPLES_CHUNK})
_NO_ROWS: Final = frozenset({ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY})


class PsycopgCursor:
    """Runs statements on an exclusively used connection. ``statements`` is None for a user's connection."""

    __slots__ = ("_connection", "_rows", "_statements")

    def __init__(self, connection: psycopg.Connection[Any], statements: PreparedStatements | None) -> None:
        self._connection = connection
        self._statements = statements
        self._rows: list[tuple[Any, ...]] = []

    @property
    def description(self) -> bool:
        """Whether there are rows. Unlike the driver's, which builds an object per column, it costs nothing."""
        return bool(self._rows)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows of the last statement."""
        return self._rows

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement. With prepared statements on, a short one with parameters is prepared on its sixth run.

        Statements inside a transaction are never prepared. The driver's cursor runs the statement if the connection is
        a user's, is not in autocommit mode, does not use UTF-8 or has a custom cursor class; if a parameter is not a
        str without NUL, an int or bytes; and as a retry, if the server fails because it infers another parameter type
        than the driver would send.
        """
        statements = self._statements
        if statements is None:
            self._run_on_cursor(query, parameters, prepare=None)
            return
        packed = self._packed(parameters)
        if packed is None:
            # Through a pooler, the driver's names of prepared statements could collide with another client's.
            self._run_on_cursor(query, parameters, prepare=False)
            return
        self._rows = []
        pgconn = self._connection.pgconn
        values, formats = packed
        # In a transaction, a statement missing on the server would abort the transaction.
        is_idle = pgconn.transaction_status == TransactionStatus.IDLE
        prepare, prepared = statements.find(query) if is_idle and values else ("", None)
        try:
            if prepare:
                self._run(pgconn.send_query, prepare.encode())
            if prepared is not None:
                name = prepared.name.encode()
                self._rows = self._run(pgconn.send_query_prepared, name, values, formats, Format.BINARY)
            else:
                body = numbered(query) if values else query
                self._rows = self._run(pgconn.send_query_params, body.encode(), values, None, formats, Format.BINARY)
        except psycopg.Error as error:
            if not is_idle or error.sqlstate not in (RETRY_TYPED if prepared is None else RETRY_UNPREPARED):
                raise
            # Nothing was committed, so a retry is safe.
            discarded = statements.discard(query)
            if discarded and error.sqlstate != MISSING:
                with suppress(psycopg.Error):  # it may not exist
                    self._run(pgconn.send_query, f"DEALLOCATE {discarded}".encode())
            self._run_on_cursor(query, parameters, prepare=False)

    def execute_once(self, query: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement on the driver's cursor, without preparing it."""
        self._run_on_cursor(query, parameters, prepare=False)

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""
        for row in rows:
            self.execute(query, row)

    def _run_on_cursor(self, query: str, parameters: Sequence[Any], *, prepare: bool | None) -> None:
        self._rows = []
        cursor = self._connection.cursor(binary=True)
        cursor.execute(query, parameters or None, prepare=prepare)
        # Not through the cursor, whose class may return other row types.
        if cursor.pgresult is not None and cursor.pgresult.status == ExecStatus.TUPLES_OK:
            self._rows = self._load(cursor.pgresult)

    def _load(self, result: PGresult) -> list[tuple[Any, ...]]:
        transformer = Transformer(self._connection)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    def _packed(self, parameters: Sequence[Any]) -> tuple[list[bytes | None], list[int]] | None:
        """Return parameter values and formats; None if the driver's cursor is needed. The server infers the types."""
        connection = self._connection
        if (
            fetch is None
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
            elif cls in _BINARY_TYPES:
                values.append(parameter)
                formats.append(Format.BINARY)
            else:
                return None
        return values, formats

    def _run(self, start: Callable[..., None], *arguments: Any) -> list[tuple[Any, ...]]:
        """Send a request and return its rows; raises the driver's error."""
        start(*arguments)
        if _HAS_CHUNKS:
            with suppress(psycopg.Error):  # optional: without it, all rows arrive at once
                self._connection.pgconn.set_chunked_rows_mode(_CHUNK)
        rows: list[tuple[Any, ...]] = self._connection.wait(self._receive())
        return rows

    def _receive(self) -> Generator[Any, Any, list[tuple[Any, ...]]]:
        pgconn = self._connection.pgconn
        rows: list[tuple[Any, ...]] = []
        failure: psycopg.Error | None = None
        is_answered = False
        yield from send(pgconn)
        while True:
            try:
                result = yield from fetch(pgconn)
            except psycopg.DatabaseError:
                if failure is None:
                    raise
                break  # the failure explains the lost connection
            if result is None:
                break
            if result.status in _ROWS:
                rows += self._load(result)
            elif result.status == ExecStatus.FATAL_ERROR:
                failure = failure or error_from_result(result, encoding=self._connection.info.encoding)
            elif result.status not in _NO_ROWS:
                # For example COPY. The pool closes a connection with a pending conversation.
                is_answered = False
                break
            is_answered = True
        if failure is not None:
            try:
                raise failure
            finally:
                del failure, rows  # breaks the reference cycle of traceback and frame
        if not is_answered:
            msg = "The server sent an unexpected response. Use plain statements only, not COPY."
            raise psycopg.InternalError(msg)
        return rows
