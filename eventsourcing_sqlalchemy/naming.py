"""Schema and table names: templates, length limits, quoting, and keys for advisory locks.

A name is used as written and always quoted. Capitals, dashes, spaces, quotes and Unicode work, and no name can inject
SQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from eventsourcing.persistence import ProgrammingError

from eventsourcing_sqlalchemy.errors import SettingsError

__all__ = [
    "TableName",
    "check_identifier",
    "environment_name",
    "expand_template",
    "is_extended",
    "quote",
    "shorten_identifier",
]

# The suffix of an events table's index. It limits the length of the table's name.
EVENTS_INDEX_SUFFIX = "_aggregate_idx"

# The hash at the end of a shortened identifier.
_ENDING: Final = re.compile("_[0-9a-f]{8}")
_ENDING_BYTES: Final = 9


@dataclass(frozen=True, slots=True)
class TableName:
    """A table and its schema; ``schema`` is None if the database has no schemas."""

    schema: str | None
    name: str

    @property
    def key(self) -> int:
        """A signed 64-bit hash that identifies the table in advisory locks and wake-ups, equal in all processes.

        A NUL, which no identifier contains, separates the parts, so that ``a`` + ``b.c`` and ``a.b`` + ``c`` differ.
        """
        digest = blake2b(f"{self.schema or ''}\0{self.name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)

    def __str__(self) -> str:
        return f"{quote(self.schema)}.{quote(self.name)}" if self.schema else quote(self.name)


def quote(identifier: str) -> str:
    """Return the identifier as SQL, in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def check_identifier(kind: str, identifier: str, limit: int | None, *, suffix: str = "") -> None:
    """Raise ProgrammingError unless ``identifier`` with ``suffix`` is a valid name in the database.

    ``limit`` counts UTF-8 bytes, as PostgreSQL does, which would otherwise truncate the name silently. None means no
    limit.
    """
    if not identifier:
        msg = f"The {kind} is empty. Give it a name."
        raise ProgrammingError(msg)
    if "\0" in identifier:
        msg = f"The {kind} {identifier!r} contains a NUL character, which no database accepts. Choose another name."
        raise ProgrammingError(msg)
    try:
        length = len((identifier + suffix).encode())
    except UnicodeEncodeError:
        msg = f"The {kind} {identifier!r} is not valid Unicode. Choose another name."
        raise ProgrammingError(msg) from None
    if limit is not None and length > limit:
        derived = f" (with '{suffix}' for its index)" if suffix else ""
        msg = (
            f"Identifier too long: the {kind} {identifier!r} has {length} bytes{derived}, the limit is {limit}. "
            "Choose a shorter name."
        )
        raise ProgrammingError(msg)


def shorten_identifier(identifier: str, limit: int | None) -> str:
    """Return the identifier; one of more than ``limit`` bytes is truncated and ends with a hash of the whole."""
    whole = identifier.encode()
    if limit is None or len(whole) <= limit:
        return identifier
    return f"{_head(identifier, limit)}_{blake2b(whole, digest_size=4).hexdigest()}"


def _head(identifier: str, limit: int) -> str:
    return identifier.encode()[: limit - _ENDING_BYTES].decode(errors="ignore")


def is_extended(identifier: str, beginning: str, limit: int | None) -> bool:
    """Return whether the identifier starts with ``beginning``, even if it was shortened to ``limit`` bytes."""
    if identifier.startswith(beginning):
        return True
    if limit is None or len(beginning.encode()) <= limit - _ENDING_BYTES:
        return False
    # The beginning was truncated too.
    head = _head(beginning, limit)
    return identifier.startswith(head) and _ENDING.fullmatch(identifier[len(head) :]) is not None


def expand_template(template: str, application: str, variable: str) -> str:
    """Replace ``{application}`` in a template by the application's name, in lower case as in its table names.

    Raises SettingsError for any other brace, and for ``{application}`` if the application has no name.
    """
    literal = template.replace("{application}", "")
    if "{" in literal or "}" in literal:
        msg = (
            f"{variable}={template!r} (application {application!r}): the only placeholder is {{application}}. Remove "
            "the other braces."
        )
        raise SettingsError(msg, variable=variable)
    if literal != template and not application:
        msg = (
            f"{variable}={template!r} needs an application name, but the application has none. Set its name, or "
            "replace the placeholder."
        )
        raise SettingsError(msg, variable=variable)
    return template.replace("{application}", application.lower())


@lru_cache(maxsize=1024)
def environment_name(application: str) -> str:
    """Return an application's name as a shell can export it: upper case, other characters replaced by ``_``."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in application.upper())
