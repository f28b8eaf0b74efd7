"""Detect commits of other processes to a database without notifications, by watching its file.

One thread for each engine, only while there are subscriptions, without a connection.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from eventsourcing_sqlalchemy.background import Activity, keep_running

__all__ = ["FileWatcher"]

logger = logging.getLogger(__name__)

_LOOK_INTERVAL: Final = 0.01
# A file changes before the commit can be read, which waits for the disk. So subscriptions read now, and again after
# these times, until the file has not changed for as long. Seconds.
_FIRST_ECHO: Final = 0.02
_LAST_ECHO: Final = 0.7
_STOP_TIMEOUT: Final = 1.0


class Observer(Protocol):
    """Receives what the thread detects."""

    def wake_all(self) -> None:
        """Handle that another process may have committed."""

    def sweep(self) -> None:
        """Clean up; called often."""


class FileWatcher(threading.Thread):
    """Watches until it is stopped; ``look`` returns a value that changes with each commit."""

    def __init__(self, observer: Observer, look: Callable[[], Hashable]) -> None:
        super().__init__(name="eventsourcing-watcher", daemon=True)
        self.ready = threading.Event()
        """Set when the thread detects commits, and when it could not start."""
        self.is_live = False
        """Whether it detects commits now."""
        self.is_unavailable = False
        """Whether it could not start."""
        self.activity = Activity("watcher", "Commits of other processes are not noticed, subscriptions poll", logger)
        self._observer = observer
        self._look = look
        # Guards the fields below, for as long as a look takes.
        self._looking = threading.Lock()
        self._ignored = 0
        self._seen = look()
        self._stopping = threading.Event()
        self._echo, self._echo_at = 0.0, math.inf

    def start_or_give_up(self) -> None:
        """Start; where the process cannot have another thread, subscriptions poll."""
        try:
            self.start()
            self.is_live = True
        except RuntimeError as error:
            logger.warning("Commits of other processes are not noticed, subscriptions poll: %s", error)
            self.is_unavailable = True
        self.ready.set()

    def run(self) -> None:
        keep_running(self.activity, self._watch, self._stopping)

    def _watch(self) -> bool:
        try:
            if self._stopping.wait(_LOOK_INTERVAL):
                return False
            if self._has_changed():
                self._echo, self._echo_at = _FIRST_ECHO, time.monotonic() + _FIRST_ECHO
                self._observer.wake_all()
            elif time.monotonic() >= self._echo_at:
                self._echo *= 2
                self._echo_at = math.inf if self._echo > _LAST_ECHO else time.monotonic() + self._echo
                self._observer.wake_all()
            self._observer.sweep()
        except BaseException:
            self.is_live = False  # subscriptions look more often
            raise
        self.is_live = True
        return True

    def _has_changed(self) -> bool:
        with self._looking:
            if self._ignored:
                return False
            before, self._seen = self._seen, self._look()
            return before != self._seen

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        """Ignore file changes inside the block: a write of this process wakes its subscriptions by itself, and no other
        process can write at the same time.
        """
        with self._looking:
            is_quiet = not self._ignored and self._look() == self._seen
            self._ignored += 1
        try:
            yield
        finally:
            with self._looking:
                self._ignored -= 1
                if is_quiet:
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
