"""Replace a view in attempts, each of which gives up its locks soon, until no other transaction uses the view."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from eventsourcing.persistence import OperationalError

from tenancy.errors import TenancyError
from tenancy.storage.remover import is_in_use

__all__ = ["LAST", "LOCK_TIMEOUT", "NotCaughtUpError", "replace_in_attempts"]

LOCK_TIMEOUT: Final = 0.3
"""How long one attempt waits for the readers and writers of the view. Later ones queue behind it. Seconds."""
LAST: Final = 200
"""Notifications that are processed while the view is locked."""
# Pauses between attempts, in which the waiting ones proceed, and the limit of all attempts. Seconds.
_FIRST_PAUSE: Final = 0.1
_MAX_PAUSE: Final = 2.0
_TIMEOUT: Final = 120.0


class NotCaughtUpError(Exception):
    """The new tables must get more notifications before the view is locked."""


def replace_in_attempts(
    catch_up: Callable[[], None], attempt: Callable[[], None], check: Callable[[], None], what: str
) -> None:
    """Call ``catch_up`` and then ``attempt``, again until it succeeds; ``check`` is called between attempts.

    Raises TenancyError, about the view that ``what`` names, when that is impossible for two minutes, because other
    transactions use the view, or because notifications are added faster than they can be processed.
    """
    until = time.monotonic() + _TIMEOUT
    pause = _FIRST_PAUSE
    while True:
        catch_up()
        try:
            attempt()
        except (OperationalError, NotCaughtUpError) as error:
            if isinstance(error, OperationalError) and not is_in_use(error):
                raise
            if time.monotonic() > until:
                msg = f"{what} could not be replaced: {error}."
                remedy = (
                    "End the transactions that use it, or wait until fewer events are recorded, then rebuild it again."
                )
                raise TenancyError(msg, remedy=remedy) from error
            check()
            if isinstance(error, OperationalError):
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (not a secret)
                pause = min(pause * 2, _MAX_PAUSE)
        else:
            return
