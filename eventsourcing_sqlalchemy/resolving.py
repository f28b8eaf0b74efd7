"""Determine the outcome of a write whose connection broke before the response arrived."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from eventsourcing.persistence import IntegrityError, OperationalError

from eventsourcing_sqlalchemy.background import pause
from eventsourcing_sqlalchemy.errors import ConnectionLostError, is_retryable

__all__ = ["resolve"]

# Seconds between two attempts. The first retry is immediate.
_FIRST_PAUSE: Final = 0.05
_MAX_PAUSE: Final = 1.0


def resolve(write: Callable[[], list[int]], recorded: Callable[[], list[int] | None], timeout: float) -> list[int]:
    """Write again and compare with the recorded events until the outcome is known; return the event ids.

    The lost attempt may still commit, because the old server process may still be running. An incomplete read therefore
    proves nothing, so the same events are written again, and the unique index lets only one attempt win. ``recorded``
    returns the ids if everything is recorded exactly as written, otherwise None.

    Raises IntegrityError if another writer was first. Raises the last error if it cannot be retried, or after
    ``timeout`` seconds. Makes at least one attempt.
    """
    deadline = time.monotonic() + timeout
    delay = _FIRST_PAUSE
    while True:
        try:
            return _attempt(write, recorded)
        except OperationalError as error:
            if not is_retryable(error) or time.monotonic() + delay > deadline:
                raise
        pause(delay)
        delay = min(delay * 2, _MAX_PAUSE)


def _attempt(write: Callable[[], list[int]], recorded: Callable[[], list[int] | None]) -> list[int]:
    try:
        return write()
    except (IntegrityError, ConnectionLostError):
        # Also after a lost connection: a network that drops responses to writes may deliver one to a query.
        ids = recorded()
        if ids is None:
            raise
        return ids
