"""Names of schemas and tables: templates, limits, and numbers that stand for a table.

A name is taken as it is written and always quoted, so capitals, dashes, spaces, quotes and unicode work and nothing in
a name is ever run as SQL.
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

# What is made beside a table of events and carries its name; the longest decides how long the name of the table may be.
EVENTS_INDEX_SUFFIX = "_aggregate_idx"

# How a shortened identifier ends: with a hash.
_ENDING: Final = re.compile("_[0-9a-f]{8}")
_ENDING_BYTES: Final = 9


@dataclass(frozen=True, slots=True)
class TableName:
    """A table and the schema that it is in; ``schema`` is None where the database has no schemas."""

    schema: str | None
    name: str

    @property
    def key(self) -> int:
        """A number of 64 bits (signed) that stands for the table in advisory locks and wake-ups, the same in every
        process and on every machine.

        The parts are separated by a character that no identifier can contain: ``a`` + ``b.c`` and ``a.b`` + ``c``
        differ.
        """
        digest = blake2b(f"{self.schema or ''}\0{self.name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)

    def __str__(self) -> str:
        return f"{quote(self.schema)}.{quote(self.name)}" if self.schema else quote(self.name)


def quote(identifier: str) -> str:
    """Return the identifier in double quotes, as SQL wants it."""
    return '"' + identifier.replace('"', '""') + '"'


def check_identifier(kind: str, identifier: str, limit: int | None, *, suffix: str = "") -> None:
    """Raise ProgrammingError unless ``identifier`` with ``suffix`` can be the name of an object in the database.

    ``limit`` is counted in bytes of UTF-8, as PostgreSQL does, which would otherwise cut the name silently; None means
    no limit.
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
        msg = f"The {kind} {identifier!r} is not valid unicode. Choose another name."
        raise ProgrammingError(msg) from None
    if limit is not None and length > limit:
        derived = f" (with '{suffix}', which the database makes beside it)" if suffix else ""
        msg = (
            f"Identifier too long: the {kind} {identifier!r} has {length} bytes{derived}, the limit is {limit}. "
            "Choose a shorter name."
        )
        raise ProgrammingError(msg)


def shorten_identifier(identifier: str, limit: int | None) -> str:
    """Return the identifier, or when it has more than ``limit`` bytes, its beginning and a hash of the whole."""
    whole = identifier.encode()
    if limit is None or len(whole) <= limit:
        return identifier
    return f"{_head(identifier, limit)}_{blake2b(whole, digest_size=4).hexdigest()}"


def _head(identifier: str, limit: int) -> str:
    return identifier.encode()[: limit - _ENDING_BYTES].decode(errors="ignore")


def is_extended(identifier: str, beginning: str, limit: int | None) -> bool:
    """Return whether the identifier is one that begins so, perhaps shortened to ``limit`` bytes."""
    if identifier.startswith(beginning):
        return True
    if limit is None or len(beginning.encode()) <= limit - _ENDING_BYTES:
        return False
    # What it begins with was cut too.
    head = _head(beginning, limit)
    return identifier.startswith(head) and _ENDING.fullmatch(identifier[len(head) :]) is not None


def expand_template(template: str, application: str, variable: str) -> str:
    """Return the template with ``{application}`` replaced by the name of the application, in lower case as in the names
    of its tables.

    Raises SettingsError for any other brace, and for ``{application}`` where the application has no name.
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
            f"{variable}={template!r} needs the name of an application, and this one has none. Name it or write the "
            "name out."
        )
        raise SettingsError(msg, variable=variable)
    return template.replace("{application}", application.lower())


@lru_cache(maxsize=1024)
def environment_name(application: str) -> str:
    """Return the name of an application as a shell can export it: upper case, with ``_`` for every character outside
    A-Z, 0-9 and ``_``.
    """
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in application.upper())
