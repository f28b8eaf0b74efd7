"""The ready queue: followers that have work, in the order in which workers take them."""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from uuid import UUID

__all__ = ["Key", "ReadyQueue"]

Key = tuple[UUID, str]
"""A tenant's id and the name of a follower."""


class ReadyQueue:
    """A fair queue that holds each ready follower once, however often it is woken. Safe to use from many threads.

    The order is first in, first out. A follower that needs another slice goes to the end, so a busy follower delays
    the others by one slice at a time. A follower is never taken twice at once, and at most ``per_tenant`` followers of
    one tenant run at the same time.
    """

    def __init__(self, per_tenant: int) -> None:
        self._per_tenant = per_tenant
        # Guards the fields below, for in-memory operations only.
        self._changed = threading.Condition()
        self._ready: OrderedDict[Key, set[str]] = OrderedDict()
        self._running: dict[Key, set[str]] = {}
        self._running_of: dict[UUID, int] = {}
        self._blocked: dict[Key, tuple[float, set[str]]] = {}
        self._ends: list[tuple[float, Key]] = []
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: Key, leaders: Iterable[str]) -> None:
        """Enqueue a follower, to read these leaders."""
        with self._changed:
            if key in self._blocked:
                self._blocked[key][1].update(leaders)
            elif key in self._running:
                self._running[key].update(leaders)  # it may have read them already
            elif key in self._ready:
                self._ready[key].update(leaders)
            else:
                self._ready[key] = set(leaders)
                self._changed.notify()

    def take(self) -> tuple[Key, set[str]] | None:
        """Wait for the next follower; return it with the leaders to read, or None when the queue is closed."""
        with self._changed:
            while not self._is_closed:
                wait = self._unblock_due()
                for key in self._ready:
                    if self._running_of.get(key[0], 0) < self._per_tenant:
                        leaders = self._ready.pop(key)
                        self._running[key] = set()
                        self._running_of[key[0]] = self._running_of.get(key[0], 0) + 1
                        return key, leaders
                self._changed.wait(None if wait == math.inf else wait)
            return None

    def done(self, key: Key, more: Iterable[str] = ()) -> None:
        """Mark a slice as finished; ``more`` are the leaders with more to read."""
        with self._changed:
            leaders = self._running.pop(key) | set(more)
            self._running_of[key[0]] -= 1
            if not self._running_of[key[0]]:
                del self._running_of[key[0]]
            if key in self._blocked:
                self._blocked[key][1].update(leaders)
            elif leaders:
                self._ready[key] = leaders
            # Even without more work: another follower may have waited for this tenant's limit.
            self._changed.notify()

    def block(self, key: Key, leaders: Iterable[str], seconds: float) -> None:
        """Hold a follower back for some seconds, or with ``math.inf`` until :meth:`unblock`, and enqueue it then."""
        with self._changed:
            until = time.monotonic() + seconds
            waiting = self._ready.pop(key, set()) | self._blocked.get(key, (0.0, set()))[1]
            self._blocked[key] = (until, waiting | set(leaders))
            if until < math.inf:
                heapq.heappush(self._ends, (until, key))
                self._changed.notify()

    def unblock(self, key: Key) -> None:
        """Enqueue a blocked follower now."""
        with self._changed:
            blocked = self._blocked.pop(key, None)
            if blocked is not None and key not in self._running:
                self._ready[key] = blocked[1]
                self._changed.notify()
            elif blocked is not None:
                self._running[key].update(blocked[1])

    def _unblock_due(self) -> float:
        now = time.monotonic()
        while self._ends and self._ends[0][0] <= now:
            until, key = heapq.heappop(self._ends)
            blocked = self._blocked.get(key)
            if blocked is not None and blocked[0] == until:
                del self._blocked[key]
                if key in self._running:
                    self._running[key].update(blocked[1])
                else:
                    self._ready[key] = blocked[1]
        return self._ends[0][0] - now if self._ends else math.inf

    def drop(self, tenant_id: UUID) -> None:
        """Remove a tenant's followers; a running slice continues."""
        with self._changed:
            for waiting in (self._ready, self._blocked):
                for key in [key for key in waiting if key[0] == tenant_id]:
                    del waiting[key]

    def running(self) -> list[UUID]:
        """Return the tenants that have a follower running now."""
        with self._changed:
            return list(self._running_of)

    def close(self) -> None:
        """Hand out no more followers, and wake up all waiting workers."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
