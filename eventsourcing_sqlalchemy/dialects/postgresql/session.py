"""Capture the initial state of a PostgreSQL session, to restore it after each use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["NewSession", "remember"]

# DISCARD ALL without DEALLOCATE ALL: the driver relies on its prepared statements.
_RESET: Final = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); "
    "DISCARD TEMP; DISCARD SEQUENCES"
)

# Value formats, which drivers and this package set when they connect. No other settings: behind a pooler, a setting
# that the pooler does not track would leak to the next client of the server process.
_BY_DRIVERS: Final = ("client_encoding", "DateStyle")

# The role comes last, because it may lack the privilege to change the others. PostgreSQL does not list custom
# parameters such as 'app.user' of extensions that are not loaded.
_CHANGED: Final = """
SELECT name, setting FROM (
  SELECT 1 AS turn, name::text, setting FROM pg_catalog.pg_settings WHERE source = 'session'
  UNION ALL SELECT 2, 'session_authorization', session_user::text
  UNION ALL SELECT 3, 'role', current_setting('role')
) AS settings ORDER BY turn
"""


class NewSession(NamedTuple):
    """The state of a session after its driver, a creator and listeners have run."""

    driver_state: Any
    reset_script: str
    """Closes what the session has open, and restores its settings."""


def remember(driver_state: Any, reported: Callable[[str], str | None], cursor: Any = None) -> NewSession:
    """Return the state of a new session.

    ``reported`` returns a setting that the server reports by itself. With ``cursor``, the settings that a creator or a
    listener has changed are queried too.
    """
    settings: dict[str, str] = {name: value for name in _BY_DRIVERS if (value := reported(name)) is not None}
    if cursor is not None:
        cursor.execute(_CHANGED)
        settings |= dict(cursor.fetchall())
    return NewSession(driver_state, "; ".join([_RESET, *_assignments(settings)]))


def _assignments(settings: Mapping[str, str]) -> list[str]:
    return [f"SELECT set_config({_literal(name)}, {_literal(value)}, false)" for name, value in settings.items()]


def _literal(text: str) -> str:
    """Return a text as a literal that does not depend on ``standard_conforming_strings``."""
    return "E'" + text.replace("\\", r"\\").replace("'", "''") + "'"
