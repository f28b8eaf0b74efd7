"""Retry a migration that another transaction blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy.errors import is_retryable

__all__ = ["LOCK_TIMEOUT", "retry_while_locked"]

_T = TypeVar("_T")

LOCK_TIMEOUT: Final = 0.5
"""Seconds that one attempt waits for a lock. Meanwhile, the table's readers and writers queue behind it."""

# All attempts together take about half a minute: long enough for a report, short enough for an operator.
_ATTEMPTS: Final = 10
_FIRST_PAUSE: Final = 0.1
_MAX_PAUSE: Final = 5.0


def retry_while_locked(attempt: Callable[[], _T], check: Callable[[], None] = lambda: None) -> _T:
    """Return the result of ``attempt``, calling it again after growing pauses while a lock or a lost connection stops
    it.

    A lock that is requested and not granted blocks all later requests, also those of writers. So an attempt gives up
    early, and the writers go on during the pauses. ``attempt`` is called at most ten times, and then its error is
    raised. ``check`` is called before each attempt, and may raise to give up.
    """
    pause = _FIRST_PAUSE
    for number in range(1, _ATTEMPTS + 1):
        check()
        try:
            return attempt()
        except PersistenceError as error:
            if number == _ATTEMPTS or not is_retryable(error):
                raise
        threading.Event().wait(pause)  # unlike a sleep, not affected by the wall clock
        pause = min(2 * pause, _MAX_PAUSE)
    raise AssertionError
