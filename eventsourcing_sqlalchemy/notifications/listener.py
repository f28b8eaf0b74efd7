"""The thread that receives the wake-ups of other processes, on one connection for each engine.

When the connection breaks, the thread connects again, listens first and then wakes every subscription, because it may
have missed wake-ups. Meanwhile, subscriptions poll.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from eventsourcing_sqlalchemy.background import Activity, keep_running
from eventsourcing_sqlalchemy.dialects.protocols import Listener

__all__ = ["ListenThread"]

logger = logging.getLogger(__name__)

_STOP_TIMEOUT: Final = 0.1
_SWEEP_MILLISECONDS: Final = 1000


class Observer(Protocol):
    """Receives what the thread does."""

    def received(self, payload: str) -> None:
        """Handle a notification."""

    def wake_all(self) -> None:
        """Handle that notifications may have been missed."""

    def sweep(self) -> None:
        """Clean up; called about once a second."""


class Closable(Protocol):
    """A connection."""

    def close(self) -> None:
        """Close it."""


class ListenThread(threading.Thread):
    """Listens until it is stopped, on the connection that ``connect`` opens: None means that it cannot listen."""

    def __init__(self, observer: Observer, connect: Callable[[], tuple[Listener, Closable] | None]) -> None:
        super().__init__(name="eventsourcing-listener", daemon=True)
        self.ready = threading.Event()
        """Set when notifications are received, and when connecting has failed."""
        self.is_live = False
        """Whether notifications are received now."""
        self.is_unavailable = False
        """Whether this process cannot receive them at all: because of its database URL, or for want of a thread."""
        self.activity = Activity("listener", "Wake-ups are not received, subscriptions poll", logger)
        self._observer = observer
        self._open = connect
        self._stopping = threading.Event()
        self._is_outdated = False
        self._alarm = _Alarm()
        self._connection: Any = None

    def start_or_give_up(self) -> None:
        """Start; where the process cannot have another thread, subscriptions poll."""
        try:
            self.start()
        except RuntimeError as error:
            logger.warning("Wake-ups are not received, subscriptions poll: %s", error)
            self.is_unavailable = True
            self._alarm.close()
            self.ready.set()

    def stop(self) -> None:
        """End the thread and close its connection, at once unless the server is silent: then they end later."""
        self._stopping.set()
        self._alarm.set()
        self.join(_STOP_TIMEOUT)

    def reconnect(self) -> None:
        """Listen on a new connection within a second."""
        self._is_outdated = True

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread; returns at once in the thread itself, and when it was never started."""
        if self.is_alive() and threading.current_thread() is not self:
            super().join(timeout)

    def run(self) -> None:
        try:
            keep_running(self.activity, self._listen_once, self._stopping)
        finally:
            self.ready.set()
            self._alarm.close()

    def _listen_once(self) -> bool:
        """Listen on one connection until it breaks, which raises an error, or the thread is stopped."""
        if self._stopping.is_set():
            return False
        try:
            listener = self._connect()
            if listener is None:
                self.is_unavailable = True
                return False
            try:
                self._listen(listener)
            finally:
                self.is_live = False
                self._connection.close()
        except Exception:
            self.ready.set()
            raise
        return False

    def _connect(self) -> Listener | None:
        self._is_outdated = False
        connected = self._open()
        if connected is None:
            logger.warning(
                "Wake-ups cannot be received through this URL (a pooler, or a driver that cannot wait for them): "
                "subscriptions poll. Set SQLALCHEMY_LISTEN_URL to a direct connection through psycopg2 or psycopg."
            )
            return None
        listener, self._connection = connected
        return listener

    def _listen(self, listener: Listener) -> None:
        poll = select.poll()
        poll.register(listener.fileno(), select.POLLIN)
        poll.register(self._alarm.fileno, select.POLLIN)
        # From here on, commits are notified; subscriptions read earlier ones now.
        self.is_live = True
        self.activity.works()
        self._observer.wake_all()
        self.ready.set()
        while not self._stopping.is_set():
            if self._is_outdated:
                msg = "The connection is to be replaced."
                raise ConnectionError(msg)
            ready = {descriptor for descriptor, _ in poll.poll(_SWEEP_MILLISECONDS)}
            if listener.fileno() in ready:
                for payload in listener.receive():
                    self._observer.received(payload)
            self._observer.sweep()


class _Alarm:
    """A pipe that becomes readable when it is set, for waiting on sockets."""

    def __init__(self) -> None:
        self.fileno, self._write = os.pipe()
        self._lock = threading.Lock()
        self._is_closed = False

    def set(self) -> None:
        with self._lock:
            # Once closed, the number may belong to another file.
            if not self._is_closed:
                os.write(self._write, b"\0")

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            os.close(self.fileno)
            os.close(self._write)
