"""Statements that are prepared on the server, for psycopg2, which does not do so by itself.

A statement is prepared when a connection runs it for the sixth time, together with running it, and then only executed,
which spares the server to parse and plan it again. As psycopg, the younger driver, does.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class, whatever its name)

__all__ = ["PreparedStatements", "preparing_cursor"]

_RUN_BEFORE: Final = 5
_MAX_STATEMENTS: Final = 100
_MAX_LENGTH: Final = 2000

_MISSING: Final = "26000"  # for example after DISCARD ALL
_EXISTS: Final = "42P05"  # left by somebody else, through a pooler
_OUTDATED: Final = "0A000"  # the type of a column was changed
_NO_OPERATOR: Final = "42883"  # the type of a column was changed: the parameter has the one that it had
_OUT_OF_RANGE: Final = "22003"  # of the type that the parameter was given, where a literal may have a wider one
_TRY_PLAIN: Final = frozenset({_MISSING, _EXISTS, _OUTDATED, _NO_OPERATOR, _OUT_OF_RANGE})


class PreparedStatements:
    """The statements of one connection: how often they have been run, and how those are executed that are prepared."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, int] = OrderedDict()
        self._prepared: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def sql(self, statement: str) -> tuple[str, str]:
        """Return what prepares a statement, if it is to be prepared now, and what runs it, with its placeholders.

        Apart: the server keeps the whole text that a statement was prepared by, with all values in it.
        """
        prepared = self._prepared.get(statement)
        if prepared is not None:
            self._prepared.move_to_end(statement)
            return "", prepared[1]
        runs = self._runs.pop(statement, 0)
        if runs < _RUN_BEFORE:
            self._runs[statement] = runs + 1
            if len(self._runs) > _MAX_STATEMENTS:
                self._runs.popitem(last=False)
            return "", statement
        return self._prepare(statement)

    def _prepare(self, statement: str) -> tuple[str, str]:
        body, arguments = _numbered(statement)
        # The name says what it does: one that somebody else left on a server process, through a pooler, is the same.
        name = f"eventsourcing_{blake2b(body.encode(), digest_size=16).hexdigest()}"
        execute = f"EXECUTE {name}{arguments}"
        forget = ""
        if len(self._prepared) == _MAX_STATEMENTS:
            forget = f"DEALLOCATE {self._prepared.popitem(last=False)[1][0]}; "
        self._prepared[statement] = name, execute
        return f"{forget}PREPARE {name} AS {body.replace('%%', '%')}", execute

    def discard(self, statement: str) -> str:
        """Forget a statement, and return its name on the server."""
        return self._prepared.pop(statement, ("", ""))[0]


@lru_cache(maxsize=1000)
def _numbered(statement: str) -> tuple[str, str]:
    """Return a statement with $1, $2 and so on in the place of each %s, and as many %s as arguments."""
    numbers = count(1)
    body = re.sub("%%|%s", lambda found: found[0] if found[0] == "%%" else f"${next(numbers)}", statement)
    return body, f"({', '.join(['%s'] * (next(numbers) - 1))})"


@cache
def preparing_cursor() -> type[Cursor]:
    """Return the class of cursors that prepare; its objects need an attribute ``statements``."""
    from psycopg2 import Error, extensions  # noqa: PLC0415 (only who uses the driver needs it)

    class PreparingCursor(extensions.cursor):
        statements: PreparedStatements

        def execute(self, query: Any, vars: Sequence[Any] | None = None) -> None:  # type: ignore[override]  # noqa: A002 (their names)
            # In a transaction, a statement that the server has forgotten would end it.
            if vars is None or len(query) > _MAX_LENGTH or self.connection.info.transaction_status != 0:
                super().execute(query, vars)
                return
            prepare, run = self.statements.sql(query)
            try:
                if prepare:
                    super().execute(prepare)
                super().execute(run, vars)
            except Error as error:
                if run == query or error.pgcode not in _TRY_PLAIN:
                    raise
                # Nothing has been run.
                name = self.statements.discard(query)
                with suppress(Error):  # it may not be there
                    super().execute(f"DEALLOCATE {name}")
                super().execute(query, vars)

        def execute_once(self, query: Any, parameters: Sequence[Any]) -> None:
            super().execute(query, parameters)

    return PreparingCursor
