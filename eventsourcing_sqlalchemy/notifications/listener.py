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

from eventsourcing_sqlalchemy.dialects.protocols import Listener
from eventsourcing_sqlalchemy.notifications.receiver import CommitReceiver, Observer

__all__ = ["ListenThread"]

logger = logging.getLogger(__name__)

_SWEEP_MILLISECONDS: Final = 1000


class Closable(Protocol):
    """A connection."""

    def close(self) -> None:
        """Close it."""


class ListenThread(CommitReceiver):
    """Listens until it is stopped, on the connection that ``connect`` opens: None means that it cannot listen."""

    def __init__(self, observer: Observer, connect: Callable[[], tuple[Listener, Closable] | None]) -> None:
        super().__init__("listener", "Wake-ups are not received, subscriptions poll", observer)
        self._open = connect
        self._is_outdated = False
        self._alarm = _Alarm()
        self._connection: Any = None

    def stop(self) -> None:
        self._stopping.set()
        self._alarm.set()
        super().stop()

    def reconnect(self) -> None:
        self._is_outdated = True

    def _end(self) -> None:
        super()._end()
        self._alarm.close()

    def _receive(self) -> bool:
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
                "subscriptions poll. Set SQLALCHEMY_LISTEN_URL to a direct connection through psycopg2 or psycopg.",
                extra={"event": "wakeups.not_received"},
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
