"""The state of a session on PostgreSQL: as its driver and others have prepared it, and again after a user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["NewSession", "remember"]

# What DISCARD ALL does, less dropping the statements that the driver has prepared and believes to be there.
_RESET: Final = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); "
    "DISCARD TEMP; DISCARD SEQUENCES"
)

# Set by drivers, and by this package, when they connect: values are read and written by them. No others: behind a
# pooler, what is set stays in a server process that is of other clients next, unless the pooler knows the setting.
_BY_DRIVERS: Final = ("client_encoding", "DateStyle")

# The role comes last: it may lack the right to change the others. PostgreSQL lists no parameters of extensions that are
# not loaded, such as 'app.user'.
_CHANGED: Final = """
SELECT name, setting FROM (
  SELECT 1 AS turn, name::text, setting FROM pg_catalog.pg_settings WHERE source = 'session'
  UNION ALL SELECT 2, 'session_authorization', session_user::text
  UNION ALL SELECT 3, 'role', current_setting('role')
) AS settings ORDER BY turn
"""


class NewSession(NamedTuple):
    """A session as its driver, a creator and listeners have prepared it."""

    of_driver: Any
    reset_script: str
    """Ends what the session has open, and takes its settings back to those that it had."""


def remember(of_driver: Any, reported: Callable[[str], str | None], cursor: Any = None) -> NewSession:
    """Return the state of a new session; ``reported`` returns a setting that the server reports, and ``cursor`` asks
    for all that a creator or a listener may have changed.
    """
    settings: dict[str, str] = {name: value for name in _BY_DRIVERS if (value := reported(name)) is not None}
    if cursor is not None:
        cursor.execute(_CHANGED)
        settings |= dict(cursor.fetchall())
    return NewSession(of_driver, "; ".join([_RESET, *_assignments(settings)]))


def _assignments(settings: Mapping[str, str]) -> list[str]:
    return [f"SELECT set_config({_literal(name)}, {_literal(value)}, false)" for name, value in settings.items()]


def _literal(text: str) -> str:
    """Return a text as a constant, whatever ``standard_conforming_strings`` is."""
    return "E'" + text.replace("\\", r"\\").replace("'", "''") + "'"
