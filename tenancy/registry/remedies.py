"""Remedies for an unusable database, by the error's code."""

from __future__ import annotations

import re
import shlex
from typing import Final

from eventsourcing_sqlalchemy.errors import READ_ONLY, database_code

__all__ = ["remedy_of"]

# By the beginning of the code: SQLite has codes for special cases, such as SQLITE_READONLY_DIRECTORY.
_BY_CODE: Final = {
    "SQLITE_READONLY": "Allow this user to write to the file and its directory: SQLite creates other files beside it.",
    "SQLITE_CANTOPEN": "Create the directory if it is missing, and allow this user to write to it and to the file.",
    "SQLITE_NOTADB": (
        "Point SQLALCHEMY_URL or TENANCY_CONTROL_URL to an SQLite file, or to a file that does not exist yet."
    ),
    "SQLITE_BUSY": "Another process has been writing to the file for long. Retry when it is done.",
    "SQLITE_FULL": "Free space on the file's disk.",
    READ_ONLY: "Connect to the primary. With several hosts in the URL, add target_session_attrs=read-write to it.",
}
# By its text: psycopg and psycopg2 do not know the code of an error that ends the connection attempt.
_MISSING_DATABASE: Final = re.compile('database "(.+)" does not exist')


def remedy_of(error: Exception) -> str | None:
    """Return the remedy for a database error, or None if it only says that the database is unreachable."""
    missing = _MISSING_DATABASE.search(str(error))
    if missing is not None:
        name = shlex.quote(missing[1])
        return f"If SQLALCHEMY_URL and TENANCY_CONTROL_URL are right, create it on that server: createdb {name}"
    code = database_code(error) or ""
    return next((remedy for beginning, remedy in _BY_CODE.items() if code.startswith(beginning)), None)
