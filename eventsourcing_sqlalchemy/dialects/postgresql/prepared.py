"""Server-side prepared statements, which this package manages itself for psycopg2 and psycopg.

A statement is prepared just before its sixth run on a connection. The server then no longer parses and plans it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import Final, NamedTuple

__all__ = ["MISSING", "RETRY_TYPED", "RETRY_UNPREPARED", "PreparedStatements", "numbered"]

_RUN_BEFORE: Final = 5
_MAX_STATEMENTS: Final = 100
_MAX_LENGTH: Final = 2000
_PLACEHOLDER: Final = re.compile("%%|%s")

MISSING: Final = "26000"  # for example after DISCARD ALL
_EXISTS: Final = "42P05"  # another client prepared it, through a pooler
_OUTDATED: Final = "0A000"  # a column type was changed
_NO_OPERATOR: Final = "42883"  # a column type was changed, and the parameter has the old one
_OUT_OF_RANGE: Final = "22003"  # the inferred parameter type is narrower than the literal's
RETRY_TYPED: Final = frozenset({_NO_OPERATOR, _OUT_OF_RANGE})
"""SQLSTATEs of errors after which to retry with explicit parameter types."""
RETRY_UNPREPARED: Final = RETRY_TYPED | {MISSING, _EXISTS, _OUTDATED}
"""SQLSTATEs of errors after which to retry a prepared statement unprepared."""


class Prepared(NamedTuple):
    """A prepared statement on the server."""

    name: str
    execute: str
    """The SQL that executes it, with placeholders."""


class PreparedStatements:
    """One connection's statements: run counts, and the prepared ones.

    Without ``is_on``, no statement is prepared.
    """

    def __init__(self, *, is_on: bool = True) -> None:
        self._is_on = is_on
        self._runs: OrderedDict[str, int] = OrderedDict()
        self._prepared: OrderedDict[str, Prepared] = OrderedDict()

    def find(self, statement: str) -> tuple[str, Prepared | None]:
        """Return (SQL that prepares the statement now or "", prepared statement); None to run it unprepared.

        PREPARE must be sent separately: the server stores the text of the whole query, including any values in it.
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
        # The name is a hash of the statement: if another client has left it on a pooled server process, it is the same.
        name = f"eventsourcing_{blake2b(body.encode(), digest_size=16).hexdigest()}"
        deallocate = ""
        if len(self._prepared) == _MAX_STATEMENTS:
            deallocate = f"DEALLOCATE {self._prepared.popitem(last=False)[1].name}; "
        prepared = self._prepared[statement] = Prepared(name, f"EXECUTE {name}({arguments})")
        return f"{deallocate}PREPARE {name} AS {body}", prepared

    def discard(self, statement: str) -> str:
        """Forget a statement, and return its name on the server, or "" if it is not prepared."""
        prepared = self._prepared.pop(statement, None)
        return "" if prepared is None else prepared.name


def numbered(statement: str) -> str:
    """Replace each %s by $1, $2 and so on, and each %% by a percent sign."""
    # Do not cache long statements: they are of large batches and seldom repeat.
    return _numbered(statement) if len(statement) <= _MAX_LENGTH else _numbered.__wrapped__(statement)


@lru_cache(maxsize=4096)
def _numbered(statement: str) -> str:
    numbers = count(1)
    return _PLACEHOLDER.sub(lambda found: "%" if found[0] == "%%" else f"${next(numbers)}", statement)
