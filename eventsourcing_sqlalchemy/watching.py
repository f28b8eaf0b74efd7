"""Notice that other processes have committed to a database that cannot tell: a file that is looked at.

One thread for each engine, only while there are subscriptions, without a connection.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

__all__ = ["WatchThread"]

logger = logging.getLogger(__name__)

_LOOK_INTERVAL: Final = 0.01
# A file changes before the commit can be read: after the disk has it. So subscriptions look at once and after these
# times again, and only then a change is a new one: this is also how often they look while somebody writes all the time.
_LOOK_AGAIN: Final = (0.015, 0.05)
_STOP_TIMEOUT: Final = 1.0


class Audience(Protocol):
    """Who is told."""

    def wake_all(self) -> None:
        """Know that somebody has committed something."""

    def sweep(self) -> None:
        """Take the time to put things in order."""


class WatchThread(threading.Thread):
    """Watches until it is stopped; ``look`` returns something that changes when anybody has committed."""

    def __init__(self, audience: Audience, look: Callable[[], Hashable]) -> None:
        super().__init__(name="eventsourcing-watcher", daemon=True)
        self.ready = threading.Event()
        """Set when commits are noticed, and when they never will be."""
        self.is_live = False
        """Whether they are noticed now."""
        self.is_deaf = False
        """Whether they never will be."""
        self._audience = audience
        self._look = look
        # Held while the file is looked at, and by who changes it in a way that nobody needs to know of.
        self._looking = threading.Lock()
        self._stopping = threading.Event()

    def start_or_give_up(self) -> None:
        """Start; where the process cannot have another thread, subscriptions poll."""
        self._seen = self._look()
        try:
            self.start()
            self.is_live = True
        except RuntimeError as error:
            logger.warning("Commits of other processes are not noticed, subscriptions poll: %s", error)
            self.is_deaf = True
        self.ready.set()

    def run(self) -> None:
        while not self._stopping.wait(_LOOK_INTERVAL):
            with self._looking:
                before, self._seen = self._seen, self._look()
            if before != self._seen:
                self._audience.wake_all()
                for pause in _LOOK_AGAIN:
                    self._stopping.wait(pause)
                    self._audience.wake_all()
            self._audience.sweep()

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        """Take the changes of the file inside of the block for no commits."""
        with self._looking:
            yield
            self._seen = self._look()

    def stop(self) -> None:
        """End the thread."""
        self.is_live = False
        self._stopping.set()
        self.join(_STOP_TIMEOUT)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread; returns at once in the thread itself, and when it was never started."""
        if self.is_alive() and threading.current_thread() is not self:
            super().join(timeout)
