"""Stable codes of errors, for programs that read the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["OTHER_CODES", "error_code"]

OTHER_CODES: Final[Mapping[str, str]] = {
    "settings": "a variable is missing or malformed",
    "conflict": "another writer was first",
    "unreachable": "the database, or the registry, cannot be reached",
    "database": "any other error of the database",
    "internal": "any other error, for example of a policy",
}
"""The codes of errors that are not kinds of TenancyError, which have their own."""

# Classes of SQLSTATE: no connection, no resources, no server.
_UNREACHABLE: Final = ("08", "53", "57P")


def error_code(error: BaseException) -> str:
    """Return the stable code of an error: that of a TenancyError, otherwise one of OTHER_CODES."""
    from eventsourcing.persistence import (  # noqa: PLC0415 (slow; loaded where there is an error to report)
        IntegrityError,
        OperationalError,
        PersistenceError,
    )

    from eventsourcing_sqlalchemy.errors import SettingsError, sqlstate  # noqa: PLC0415 (as above)
    from tenancy.errors import TenancyError  # noqa: PLC0415 (as above)

    if isinstance(error, TenancyError):
        return error.code
    if isinstance(error, SettingsError):
        return "settings"
    if isinstance(error, IntegrityError):
        return "conflict"
    if isinstance(error, OperationalError) and (sqlstate(error) or "08").startswith(_UNREACHABLE):
        return "unreachable"
    return "database" if isinstance(error, PersistenceError) else "internal"
