"""Remedies for an unusable database, by the driver's error message."""

from __future__ import annotations

import re
import shlex
from typing import Final

__all__ = ["remedy_of"]

# By text: SQLite has no SQLSTATE, and most drivers have none before they are connected.
_REMEDIES: Final = (
    (
        re.compile("attempt to write a readonly database"),
        "Allow this user to write to the file and its directory: SQLite creates other files beside it.",
    ),
    (
        re.compile("unable to open database file"),
        "Create the directory if it is missing, and allow this user to write to it and to the file.",
    ),
    (
        re.compile("file is not a database"),
        "Point SQLALCHEMY_URL or TENANCY_CONTROL_URL to an SQLite file, or to a file that does not exist yet.",
    ),
    (re.compile("database is locked"), "Another process has been writing to the file for long. Retry when it is done."),
    (re.compile("database or disk is full"), "Free space on the file's disk."),
    (
        re.compile("in a read-only transaction|during recovery"),
        "Connect to the primary. With several hosts in the URL, add target_session_attrs=read-write to it.",
    ),
    (
        re.compile('database "(.+)" does not exist'),
        "If SQLALCHEMY_URL and TENANCY_CONTROL_URL are right, create it on that server: createdb {}",
    ),
)


def remedy_of(error: Exception) -> str | None:
    """Return the remedy for a database error, or None if its text only says that the database is unreachable."""
    for pattern, remedy in _REMEDIES:
        found = pattern.search(str(error))
        if found is not None:
            return remedy.format(*map(shlex.quote, found.groups()))
    return None
