"""Find out what became of a write whose connection broke before the answer came."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from eventsourcing.persistence import IntegrityError, OperationalError

from eventsourcing_sqlalchemy.background import pause
from eventsourcing_sqlalchemy.errors import ConnectionLostError, is_retryable

__all__ = ["resolve"]

# Between two attempts. The second attempt follows the lost one at once. Seconds.
_FIRST_PAUSE: Final = 0.05
_MAX_PAUSE: Final = 1.0


def resolve(write: Callable[[], list[int]], recorded: Callable[[], list[int] | None], timeout: float) -> list[int]:
    """Write again, and compare with what is recorded, until the outcome is known; return the ids of the events.

    The lost attempt may still commit: the old server process may be about to. So reading back proves nothing unless
    all is there, and the same is written again; the unique index lets one attempt win. ``recorded`` returns the ids, or
    None unless all is recorded as it was to be written.

    Raises IntegrityError when another writer was first, and the last error when ``timeout`` seconds have passed, or
    when another attempt cannot help. Always makes one attempt.
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
        # Also when the connection is lost: a network that swallows each answer to a write may let one to a query pass.
        ids = recorded()
        if ids is None:
            raise
        return ids
