"""A connection pool that counts how often threads wait for a connection, and for how long.

Only a wait is counted: taking a connection that is free costs what it costs in SQLAlchemy's own pool.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlalchemy.pool import QueuePool

__all__ = ["WaitCountingPool", "Waits"]


class Waits:
    """Waits of threads for a connection, since the engine was created."""

    __slots__ = ("count", "seconds", "timeouts")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.timeouts = 0


class _Condition(threading.Condition):
    """Signals a free connection. Waiting threads count while they hold its lock, so none is lost."""

    def __init__(self, lock: Any, waits: Waits) -> None:
        super().__init__(lock)
        self._waits = waits

    def wait(self, timeout: float | None = None) -> bool:
        began = time.monotonic()
        is_notified = super().wait(timeout)
        self._waits.count += 1
        self._waits.seconds += time.monotonic() - began
        self._waits.timeouts += not is_notified
        return is_notified


class WaitCountingPool(QueuePool):
    """SQLAlchemy's default pool, with :attr:`waits`."""

    # SQLAlchemy names a pool's logger after the module of its class: it must stay below "sqlalchemy.pool".
    __module__ = QueuePool.__module__

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.count_in(Waits())

    def count_in(self, waits: Waits) -> None:
        """Count in ``waits`` from now on; to be called before the pool is used."""
        self.waits = waits
        queue: Any = self._pool
        queue.not_empty = _Condition(queue.mutex, waits)

    def recreate(self) -> WaitCountingPool:
        """Return a new pool, which goes on counting: an engine recreates its pool when it is disposed of."""
        pool = super().recreate()
        assert isinstance(pool, WaitCountingPool)
        pool.count_in(self.waits)
        return pool
