"""What a log may say of an error: its class, codes and stack frames, and nothing of its message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eventsourcing.persistence import IntegrityError, OperationalError, PersistenceError

from eventsourcing_sqlalchemy.errors import SettingsError, code_of, describe, frames_of, sqlstate

__all__ = ["CODES", "error_code", "error_fields"]

CODES: Final[Mapping[str, str]] = {
    "settings": "a variable is missing or malformed",
    "conflict": "another writer was first",
    "unreachable": "the database cannot be reached",
    "database": "any other error of the database",
    "internal": "any other error",
}
"""The codes of errors whose class has no ``code`` of its own."""

# Classes of SQLSTATE: no connection, no resources, no server.
_UNREACHABLE: Final = ("08", "53", "57P")


def error_code(error: BaseException) -> str:
    """Return the stable code of an error: the ``code`` of its class, otherwise one of CODES."""
    code = getattr(type(error), "code", None)
    if isinstance(code, str):
        return code
    if isinstance(error, SettingsError):
        return "settings"
    if isinstance(error, IntegrityError):
        return "conflict"
    if isinstance(error, OperationalError) and (sqlstate(error) or "08").startswith(_UNREACHABLE):
        return "unreachable"
    return "database" if isinstance(error, PersistenceError) else "internal"


def error_fields(error: BaseException) -> dict[str, Any]:
    """Return the fields of a record about an error: ``error``, ``code``, ``frames``, and ``sqlstate`` or None.

    They take the place of the error itself, because handlers may write all that a record refers to.
    """
    return {
        "error": describe(error),
        "code": error_code(error),
        "sqlstate": code_of(error),
        "frames": frames_of(error),
    }
