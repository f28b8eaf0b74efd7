"""One connection of an engine that hears the wake-ups of other processes, and the thread that waits on it.

The connection is taken out of the pool, so subscribers cost the pool nothing. When it breaks, the thread connects
again, listens first and then lets every subscription look, because nobody knows what was missed. Meanwhile,
subscriptions poll.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from eventsourcing_sqlalchemy.background import Activity, keep_running
from eventsourcing_sqlalchemy.dialects import dialect_for

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from eventsourcing_sqlalchemy.dialects.base import Dialect
    from eventsourcing_sqlalchemy.dialects.protocols import Listener
    from eventsourcing_sqlalchemy.options import EngineSettings

__all__ = ["ListenThread"]

logger = logging.getLogger(__name__)

_STOP_TIMEOUT: Final = 0.1
_SWEEP_MILLISECONDS: Final = 1000


class Observer(Protocol):
    """Who is told what was heard."""

    def received(self, payload: str) -> None:
        """Take a notification."""

    def wake_all(self) -> None:
        """Know that something may have been missed."""

    def sweep(self) -> None:
        """Take the time to put things in order."""


class ListenThread(threading.Thread):
    """Listens until it is stopped."""

    def __init__(
        self, observer: Observer, channel: str, engine: Engine, dialect: Dialect, settings: EngineSettings
    ) -> None:
        super().__init__(name="eventsourcing-listener", daemon=True)
        self.ready = threading.Event()
        """Set when notifications are heard, and when it is known that this takes a while or is not to be."""
        self.is_live = False
        """Whether notifications are heard now."""
        self.is_unsupported = False
        """Whether they cannot be heard through this database URL at all."""
        self.activity = Activity("listener", "Wake-ups are not received, subscriptions poll", logger)
        self._observer = observer
        self._channel = channel
        self._engine = engine
        self._dialect = dialect
        self._settings = settings
        self._stopping = threading.Event()
        self._is_outdated = False
        self._alarm = _Alarm()
        self._connection: Any = None

    def start_or_give_up(self) -> None:
        """Start; where the process cannot have another thread, subscriptions poll."""
        try:
            self.start()
        except RuntimeError as error:
            logger.warning("Wake-ups are not heard, subscriptions poll: %s", error)
            self.is_unsupported = True
            self._alarm.close()
            self.ready.set()

    def stop(self) -> None:
        """End the thread and close its connection, at once unless the server is silent: then they end later."""
        self._stopping.set()
        self._alarm.set()
        self.join(_STOP_TIMEOUT)

    def reconnect(self) -> None:
        """Listen on a new connection, from the next time on that the thread looks around."""
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
                self.is_unsupported = True
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
        engine, dialect = self._engine, self._dialect
        url = self._settings.listen_url
        if url is not None:
            dialect = dialect_for(url.get_backend_name(), url.get_driver_name())
            arguments = dialect.engine_options(url, self._settings).get("connect_args", {})
            engine = sa.create_engine(
                url, poolclass=NullPool, connect_args=arguments, isolation_level="AUTOCOMMIT", hide_parameters=True
            )
        self._connection = engine.raw_connection()
        self._connection.detach()
        try:
            self._connection.dbapi_connection.autocommit = True
            listener = dialect.listen(self._connection.dbapi_connection, self._channel)
        except BaseException:
            self._connection.close()
            raise
        if listener is None:
            self._connection.close()
            logger.warning(
                "Wake-ups cannot be heard through this URL (a pooler, or a driver without a way to wait for them): "
                "subscriptions poll. Set SQLALCHEMY_LISTEN_URL to a direct connection through psycopg2 or psycopg."
            )
        return listener

    def _listen(self, listener: Listener) -> None:
        poll = select.poll()
        poll.register(listener.fileno(), select.POLLIN)
        poll.register(self._alarm.fileno, select.POLLIN)
        # Listening has begun: what was committed before is found by looking, what comes after is heard.
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
    """A pipe that becomes readable when it is set, for those who wait on sockets."""

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
