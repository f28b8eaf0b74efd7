"""Keep the loops of background threads running, know which of them fail, and pause.

No timing here, or in the loops, depends on the wall clock, which may be set at any time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from eventsourcing_sqlalchemy.errors import describe

__all__ = ["Activity", "keep_running", "pause"]

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class Activity:
    """What a background thread does, and the error that it fails with now. Safe to use from many threads.

    ``consequence`` says what an error means. It is logged once, with the class of the error, until the activity works
    again or fails with another class; ``explain`` returns what to log instead of the class.
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
        """The class of the error with its SQLSTATE, None while it works."""
        self._consequence = consequence
        self._logger = logger
        self._explain = explain

    def failed(self, error: BaseException) -> None:
        """Record that it has failed."""
        kind = describe(error).removeprefix("builtins.")
        is_new, self.error = kind != self.error, kind
        if is_new:
            what = kind if self._explain is None else self._explain(error)
            self._logger.warning("%s: %s. It is retried", self._consequence, what)

    def works(self) -> None:
        """Record that it works."""
        if self.error is not None:
            self.error = None
            self._logger.info("The %s works again", self.name)


_never: Final = threading.Event()


def pause(seconds: float) -> None:
    """Sleep; a change of the wall clock neither shortens nor fails it."""
    _never.wait(seconds)


def keep_running(activity: Activity, step: Callable[[], bool], stopping: threading.Event) -> None:
    """Call ``step`` until it returns False. After an exception, pause and call it again, unless ``stopping`` is set.

    Pauses grow from 0.1 to 5 seconds while it fails at once, and are short again after a step that took longer than
    that or returned.
    """
    delay = _FIRST_PAUSE
    while True:
        began = time.monotonic()
        try:
            if not step():
                return
        except BaseException as error:  # noqa: BLE001 (whatever it is: a thread that ends is not started again)
            if stopping.is_set():
                return
            activity.failed(error)
            if time.monotonic() - began > _LONGEST_PAUSE:
                delay = _FIRST_PAUSE
            with suppress(Exception):  # even a pause may fail; the step comes all the same
                stopping.wait(delay)
            delay = min(2 * delay, _LONGEST_PAUSE)
        else:
            activity.works()
            delay = _FIRST_PAUSE
