"""Detect commits of other processes to a database without notifications, by watching its file.

One thread for each engine, only while there are subscriptions, without a connection.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from eventsourcing_sqlalchemy.notifications.receiver import CommitReceiver, Observer

__all__ = ["FileWatcher"]

_LOOK_INTERVAL: Final = 0.01
# A file changes before the commit can be read, which waits for the disk. So subscriptions read now, and again after
# these times, until the file has not changed for as long. Seconds.
_FIRST_ECHO: Final = 0.02
_LAST_ECHO: Final = 0.7


class FileWatcher(CommitReceiver):
    """Watches until it is stopped; ``look`` returns a value that changes with each commit."""

    def __init__(self, observer: Observer, look: Callable[[], Hashable]) -> None:
        super().__init__("watcher", "Commits of other processes are not noticed, subscriptions poll", observer)
        self._look = look
        # Guards the fields below, for as long as a look takes.
        self._looking = threading.Lock()
        self._ignored = 0
        self._seen = look()
        self._echo, self._echo_at = 0.0, math.inf

    def run(self) -> None:
        self.is_live = True
        self.ready.set()
        super().run()

    def _receive(self) -> bool:
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

        It adds 11 us to a write. Otherwise, each write makes every subscription to the file read at least four times,
        whatever table it follows, and closing the last connection before a fork makes them connect again.
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
