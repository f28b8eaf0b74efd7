"""Statements that are prepared on the server, and how psycopg2 runs them, which does not prepare by itself.

A statement is prepared when a connection runs it for the sixth time, just before it is run, and then only executed,
which spares the server to parse and plan it again.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class, whatever its name)

__all__ = ["MISSING", "TRY_PLAIN", "TRY_TYPED", "PreparedStatements", "numbered", "preparing_cursor"]

_RUN_BEFORE: Final = 5
_MAX_STATEMENTS: Final = 100
_MAX_LENGTH: Final = 2000
_PLACEHOLDER: Final = re.compile("%%|%s")

MISSING: Final = "26000"  # for example after DISCARD ALL
_EXISTS: Final = "42P05"  # left by somebody else, through a pooler
_OUTDATED: Final = "0A000"  # the type of a column was changed
_NO_OPERATOR: Final = "42883"  # the type of a column was changed: the parameter has the one that it had
_OUT_OF_RANGE: Final = "22003"  # of the type that the parameter was given, where a literal may have a wider one
TRY_TYPED: Final = frozenset({_NO_OPERATOR, _OUT_OF_RANGE})
"""The errors (SQLSTATE) that a statement may be spared when its parameters are given their own types."""
TRY_PLAIN: Final = TRY_TYPED | {MISSING, _EXISTS, _OUTDATED}
"""Those that a prepared statement may be spared when it is run by itself."""


class Prepared(NamedTuple):
    """A statement on the server."""

    name: str
    execute: str
    """What runs it in SQL, with its placeholders."""


class PreparedStatements:
    """The statements of one connection: how often they have been run, and how those are executed that are prepared.

    Without ``is_on`` none ever are.
    """

    def __init__(self, *, is_on: bool = True) -> None:
        self._is_on = is_on
        self._runs: OrderedDict[str, int] = OrderedDict()
        self._prepared: OrderedDict[str, Prepared] = OrderedDict()

    def find(self, statement: str) -> tuple[str, Prepared | None]:
        """Return what prepares a statement in SQL, if it is to be prepared now, and the prepared statement; None when
        it is to be run as it is.

        Apart: the server keeps the whole text that a statement was prepared by, with all values in it.
        """
        prepared = self._prepared.get(statement)
        if prepared is not None:
            self._prepared.move_to_end(statement)
            return "", prepared
        if not self._is_on or len(statement) > _MAX_LENGTH:
            return "", None
        runs = self._runs.pop(statement, 0)
        if runs < _RUN_BEFORE:
            self._runs[statement] = runs + 1
            if len(self._runs) > _MAX_STATEMENTS:
                self._runs.popitem(last=False)
            return "", None
        return self._prepare(statement)

    def _prepare(self, statement: str) -> tuple[str, Prepared]:
        body = numbered(statement)
        arguments = ", ".join(["%s"] * _PLACEHOLDER.findall(statement).count("%s"))
        # The name says what it does: one that somebody else left on a server process, through a pooler, is the same.
        name = f"eventsourcing_{blake2b(body.encode(), digest_size=16).hexdigest()}"
        forget = ""
        if len(self._prepared) == _MAX_STATEMENTS:
            forget = f"DEALLOCATE {self._prepared.popitem(last=False)[1].name}; "
        prepared = self._prepared[statement] = Prepared(name, f"EXECUTE {name}({arguments})")
        return f"{forget}PREPARE {name} AS {body}", prepared

    def discard(self, statement: str) -> str:
        """Forget a statement, and return its name on the server, or an empty text when it is not prepared."""
        prepared = self._prepared.pop(statement, None)
        return "" if prepared is None else prepared.name


def numbered(statement: str) -> str:
    """Return a statement with $1, $2 and so on in the place of each %s, and a percent sign for each %%."""
    # Long ones are those of large batches, which seldom come twice.
    return _numbered(statement) if len(statement) <= _MAX_LENGTH else _numbered.__wrapped__(statement)


@lru_cache(maxsize=4096)
def _numbered(statement: str) -> str:
    numbers = count(1)
    return _PLACEHOLDER.sub(lambda found: "%" if found[0] == "%%" else f"${next(numbers)}", statement)


@cache
def preparing_cursor() -> type[Cursor]:
    """Return the class of psycopg2's cursors that prepare; its objects need an attribute ``statements``."""
    from psycopg2 import Error, extensions  # noqa: PLC0415 (only who uses the driver needs it)

    class PreparingCursor(extensions.cursor):
        statements: PreparedStatements

        def execute(self, query: Any, vars: Sequence[Any] | None = None) -> None:  # type: ignore[override]  # noqa: A002 (their names)
            # In a transaction, a statement that the server has forgotten would end it.
            if vars is None or self.connection.info.transaction_status != 0:
                super().execute(query, vars)
                return
            prepare, prepared = self.statements.find(query)
            try:
                if prepare:
                    super().execute(prepare)
                super().execute(query if prepared is None else prepared.execute, vars)
            except Error as error:
                if prepared is None or error.pgcode not in TRY_PLAIN:
                    raise
                # Nothing has been committed.
                name = self.statements.discard(query)
                with suppress(Error):  # it may not be there
                    super().execute(f"DEALLOCATE {name}")
                super().execute(query, vars)

        def execute_once(self, query: Any, parameters: Sequence[Any]) -> None:
            super().execute(query, parameters)

    return PreparingCursor
