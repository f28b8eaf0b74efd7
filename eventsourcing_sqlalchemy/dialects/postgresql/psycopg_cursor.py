"""How statements of ours run on a connection of psycopg: past its cursor, which takes longer for a statement than the
server does to find ten rows.

What is left is what the driver itself is made of: its libpq sends, the connection waits (and cancels what is
interrupted), its transformer makes the rows and its errors are raised. Whatever is not plain runs on a cursor of the
driver, see :meth:`PsycopgCursor.execute`.
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
    TRY_PLAIN,
    TRY_TYPED,
    PreparedStatements,
    numbered,
)

try:
    from psycopg.errors import error_from_result
    from psycopg.generators import fetch, send
except ImportError:  # they are elsewhere in a later version: everything runs on cursors
    fetch = None

__all__ = ["PsycopgCursor"]

_AS_THEY_ARE: Final = frozenset({bytes, *BINARY_ARRAYS})
# Rows are made while the server sends more, so many at a time. Older versions of libpq wait for all of them.
_CHUNK: Final = 200
_HAS_CHUNKS: Final = psycopg.capabilities.has_stream_chunked()
_ROWS: Final = frozenset({ExecStatus.TUPLES_OK, ExecStatus.TUPLES_CHUNK})
_NO_ROWS: Final = frozenset({ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY})


class PsycopgCursor:
    """Runs statements on a connection that nobody else uses; without ``statements`` it is not ours."""

    __slots__ = ("_connection", "_rows", "_statements")

    def __init__(self, connection: psycopg.Connection[Any], statements: PreparedStatements | None) -> None:
        self._connection = connection
        self._statements = statements
        self._rows: list[tuple[Any, ...]] = []

    @property
    def description(self) -> bool:
        """Whether there are rows; the driver makes an object for each column, which takes longer than a few rows."""
        return bool(self._rows)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows of the statement that was run last."""
        return self._rows

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement; a short one with parameters is prepared when it is run for the sixth time outside of a
        transaction, where that is on.

        On a cursor of the driver where the connection is not ours, has no autocommit, another encoding than UTF-8 or a
        class of cursors that somebody has set; where a parameter is neither a str without NUL nor an int nor bytes; and
        where the server infers another type for a parameter than the driver gives it, and fails.
        """
        statements = self._statements
        if statements is None:
            self._run_on_cursor(query, parameters, prepare=None)
            return
        packed = self._packed(parameters)
        if packed is None:
            # The driver prepares by names that another client may have given to another statement, through a pooler.
            self._run_on_cursor(query, parameters, prepare=False)
            return
        self._rows = []
        pgconn = self._connection.pgconn
        values, formats = packed
        # In a transaction, a statement that the server has forgotten would end it.
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
            if not is_idle or error.sqlstate not in (TRY_TYPED if prepared is None else TRY_PLAIN):
                raise
            # Nothing has been committed.
            discarded = statements.discard(query)
            if discarded and error.sqlstate != MISSING:
                with suppress(psycopg.Error):  # it may not be there
                    self._run(pgconn.send_query, f"DEALLOCATE {discarded}".encode())
            self._run_on_cursor(query, parameters, prepare=False)

    def execute_once(self, query: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement on a cursor of the driver, without preparing it."""
        self._run_on_cursor(query, parameters, prepare=False)

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""
        for row in rows:
            self.execute(query, row)

    def _run_on_cursor(self, query: str, parameters: Sequence[Any], *, prepare: bool | None) -> None:
        self._rows = []
        cursor = self._connection.cursor(binary=True)
        cursor.execute(query, parameters or None, prepare=prepare)
        # Not by the cursor: it may be of a class that returns something else.
        if cursor.pgresult is not None and cursor.pgresult.status == ExecStatus.TUPLES_OK:
            self._rows = self._load(cursor.pgresult)

    def _load(self, result: PGresult) -> list[tuple[Any, ...]]:
        transformer = Transformer(self._connection)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    def _packed(self, parameters: Sequence[Any]) -> tuple[list[bytes | None], list[int]] | None:
        """Return values and formats of parameters, whose types the server infers; None when a cursor is needed."""
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
            elif cls in _AS_THEY_ARE:
                values.append(parameter)
                formats.append(Format.BINARY)
            else:
                return None
        return values, formats

    def _run(self, start: Callable[..., None], *arguments: Any) -> list[tuple[Any, ...]]:
        """Send something and return the rows that come; raises the driver's error."""
        start(*arguments)
        if _HAS_CHUNKS:
            with suppress(psycopg.Error):  # it has been sent, and all rows at once serve as well
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
                break  # it is why the connection has ended
            if result is None:
                break
            if result.status in _ROWS:
                rows += self._load(result)
            elif result.status == ExecStatus.FATAL_ERROR:
                failure = failure or error_from_result(result, encoding=self._connection.info.encoding)
            elif result.status not in _NO_ROWS:
                # Of COPY, for example. The pool closes a connection that is in the middle of a conversation.
                is_answered = False
                break
            is_answered = True
        if failure is not None:
            try:
                raise failure
            finally:
                del failure, rows  # or they would keep each other until the garbage is collected
        if not is_answered:
            msg = "The server's answer is not one to a statement of ours."
            raise psycopg.InternalError(msg)
        return rows
