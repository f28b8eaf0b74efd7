"""What to do about a database that cannot be used, by what its driver says of it."""

from __future__ import annotations

import re
import shlex
from typing import Final

__all__ = ["remedy_of"]

# By texts: SQLite has no SQLSTATE, and most drivers give none before there is a connection.
_REMEDIES: Final = (
    (
        re.compile("attempt to write a readonly database"),
        "Let this user write to the file and to its directory: SQLite makes other files beside it.",
    ),
    (
        re.compile("unable to open database file"),
        "Make its directory if there is none, and let this user write to it and to the file.",
    ),
    (
        re.compile("file is not a database"),
        "Name a file of SQLite, or one that does not exist yet: SQLALCHEMY_URL or TENANCY_CONTROL_URL.",
    ),
    (re.compile("database is locked"), "Another process writes to the file for long. Try again when it is done."),
    (re.compile("database or disk is full"), "Make room on the disk that the file is on."),
    (
        re.compile("in a read-only transaction|during recovery"),
        "Connect to the primary. With several hosts in the URL, add target_session_attrs=read-write to it.",
    ),
    (
        re.compile('database "(.+)" does not exist'),
        "If SQLALCHEMY_URL and TENANCY_CONTROL_URL are right, make it on that server: createdb {}",
    ),
)


def remedy_of(error: Exception) -> str | None:
    """Return what to do about an error of a database, or None when its text says no more than that it is away."""
    for pattern, remedy in _REMEDIES:
        found = pattern.search(str(error))
        if found is not None:
            return remedy.format(*map(shlex.quote, found.groups()))
    return None
