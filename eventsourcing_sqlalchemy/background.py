"""Run the loops of background threads, and report their failures.

No timing, here or in the loops, depends on the wall clock, which may be adjusted at any time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from eventsourcing_sqlalchemy.error_fields import error_fields
from eventsourcing_sqlalchemy.errors import describe

__all__ = ["Activity", "keep_running", "pause"]

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class Activity:
    """A background thread's task, and its current error. Thread-safe.

    ``consequence`` describes the effect of an error. It is logged with the error's class once, until the task succeeds
    or fails with another class. ``explain`` returns a text to log instead of the class.
    """

    def __init__(
        self,
        name: str,
        consequence: str,
        logger: logging.Logger,
        explain: Callable[[BaseException], str] | None = None,
    ) -> None:
        self.name = name
        self.error: str | None = None
        """The current error's class and SQLSTATE; None while the task succeeds."""
        self._consequence = consequence
        self._logger = logger
        self._explain = explain

    def failed(self, error: BaseException) -> None:
        """Record a failure."""
        kind = describe(error).removeprefix("builtins.")
        is_new, self.error = kind != self.error, kind
        if is_new:
            what = kind if self._explain is None else self._explain(error)
            extra = {"event": "activity.failed", "activity": self.name, **error_fields(error)}
            self._logger.warning("%s: %s. Retrying", self._consequence, what, extra=extra)

    def works(self) -> None:
        """Record a success."""
        if self.error is not None:
            self.error = None
            extra = {"event": "activity.recovered", "activity": self.name}
            self._logger.info("The %s works again", self.name, extra=extra)


_never_set: Final = threading.Event()


def pause(seconds: float) -> None:
    """Sleep, unaffected by changes of the wall clock."""
    _never_set.wait(seconds)


def keep_running(activity: Activity, step: Callable[[], bool], stopping: threading.Event) -> None:
    """Call ``step`` until it returns False. After an exception, pause and retry, unless ``stopping`` is set.

    Pauses double from 0.1 to 5 seconds while steps fail quickly. A step that returns, or that runs for more than 5
    seconds, resets them.
    """
    delay = _FIRST_PAUSE
    while True:
        began = time.monotonic()
        try:
            if not step():
                return
        except BaseException as error:  # noqa: BLE001 (any error: a thread that ends is not restarted)
            if stopping.is_set():
                return
            activity.failed(error)
            if time.monotonic() - began > _LONGEST_PAUSE:
                delay = _FIRST_PAUSE
            with suppress(Exception):  # even the pause may fail; retry all the same
                stopping.wait(delay)
            delay = min(2 * delay, _LONGEST_PAUSE)
        else:
            activity.works()
            delay = _FIRST_PAUSE
