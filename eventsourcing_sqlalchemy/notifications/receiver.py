"""The thread that receives the commits of other processes: the part that does not depend on how."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from eventsourcing_sqlalchemy.background import Activity, keep_running
from eventsourcing_sqlalchemy.error_fields import error_fields

__all__ = ["CommitReceiver", "Observer"]

logger = logging.getLogger(__name__)

_STOP_TIMEOUT: Final = 0.1


class Observer(Protocol):
    """Receives what the thread detects."""

    def received(self, payload: str) -> None:
        """Handle a notification."""

    def wake_all(self) -> None:
        """Handle that any table may have new events."""

    def sweep(self) -> None:
        """Clean up; called at least about once a second."""


class CommitReceiver(threading.Thread, ABC):
    """Receives commits until it is stopped. While it does not, subscriptions poll.

    ``consequence`` is logged, with the reason, when it does not.
    """

    def __init__(self, name: str, consequence: str, observer: Observer) -> None:
        super().__init__(name=f"eventsourcing-{name}", daemon=True)
        self.ready = threading.Event()
        """Set when commits are received, and when that has failed."""
        self.is_live = False
        """Whether commits are received now."""
        self.is_unavailable = False
        """Whether this process cannot receive them at all."""
        self.activity = Activity(name, consequence, logger)
        self._consequence = consequence
        self._observer = observer
        self._stopping = threading.Event()

    def start_or_give_up(self) -> None:
        """Start; where the process cannot have another thread, subscriptions poll."""
        try:
            self.start()
        except RuntimeError as error:
            extra = {"event": "wakeups.not_received", **error_fields(error)}
            logger.warning("%s: %s", self._consequence, error, extra=extra)
            self.is_unavailable = True
            self._end()

    def run(self) -> None:
        try:
            keep_running(self.activity, self._receive, self._stopping)
        finally:
            self._end()

    @abstractmethod
    def _receive(self) -> bool:
        """Receive commits for a while; return whether to go on."""

    def _end(self) -> None:
        self.is_live = False
        self.ready.set()

    def stop(self) -> None:
        """End the thread, at once unless it waits for a silent server: then it ends later."""
        self._stopping.set()
        self.join(_STOP_TIMEOUT)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread; returns at once in the thread itself, and when it was never started."""
        if self.is_alive() and threading.current_thread() is not self:
            super().join(timeout)

    def reconnect(self) -> None:
        """Receive from the server that new connections lead to, within a second."""

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        """Ignore commits of this process inside the block, which wake its subscriptions by themselves."""
        yield
