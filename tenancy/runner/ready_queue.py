"""The ready queue: followers that have work, in the order in which workers take them."""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterable
from itertools import count
from typing import Final
from uuid import UUID

__all__ = ["Key", "ReadyQueue"]

# The most by which a follower with more work may be behind the clock: a round of slices of the weight 1.
_ARREARS: Final = 1.0

Key = tuple[UUID, str]
"""A tenant's id and the name of a follower."""


class ReadyQueue:
    """A fair queue that holds each ready follower once, however often it is woken. Safe to use from many threads.

    It is a start-time fair queue. Its clock shows the turn of the follower that was taken last. A follower that needs
    another slice has its next turn 1 / weight later, and one that has waited for work has it now; equal turns are first
    in, first out. So while followers are busy, each gets slices in proportion to its tenant's weight, and with equal
    weights a busy follower delays the others by one slice at a time. Idle time earns no turns.

    A follower is never taken twice at once, and at most ``per_tenant`` followers of one tenant run at the same time.
    """

    def __init__(self, per_tenant: int, weight_of: Callable[[UUID], float] = lambda _: 1.0) -> None:
        self._per_tenant = per_tenant
        self._weight_of = weight_of
        # Guards the fields below, for in-memory operations only.
        self._changed = threading.Condition()
        self._ready: dict[Key, set[str]] = {}
        # The turns of ready followers, and of some that were removed since: only a follower's last number is valid.
        self._turns: list[tuple[float, int, Key]] = []
        self._numbers = count()
        self._number_of: dict[Key, int] = {}
        self._clock = 0.0
        self._next_turn: dict[UUID, dict[str, float]] = {}
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
                self._enqueue(key, set(leaders))

    def _enqueue(self, key: Key, leaders: set[str], arrears: float = 0.0) -> None:
        """Make a follower ready. Its turn may be before the clock by ``arrears``."""
        turn = max(self._clock - arrears, self._next_turn.get(key[0], {}).get(key[1], 0.0))
        self._ready[key] = leaders
        self._number_of[key] = number = next(self._numbers)
        heapq.heappush(self._turns, (turn, number, key))
        self._changed.notify()

    def take(self) -> tuple[Key, set[str]] | None:
        """Wait for the next follower; return it with the leaders to read, or None when the queue is closed."""
        with self._changed:
            while not self._is_closed:
                wait = self._unblock_due()
                key = self._take_turn()
                if key is not None:
                    leaders = self._ready.pop(key)
                    self._running[key] = set()
                    self._running_of[key[0]] = self._running_of.get(key[0], 0) + 1
                    return key, leaders
                self._changed.wait(None if wait == math.inf else wait)
            return None

    def _take_turn(self) -> Key | None:
        """Return the follower whose turn is next, without those of tenants at their limit; None without one."""
        at_limit = []
        try:
            while self._turns:
                turn, number, key = heapq.heappop(self._turns)
                if self._number_of.get(key) != number:
                    continue
                if self._running_of.get(key[0], 0) >= self._per_tenant:
                    at_limit.append((turn, number, key))
                    continue
                del self._number_of[key]
                # One that had to wait for its tenant's limit has an earlier turn.
                self._clock = max(self._clock, turn)
                self._next_turn.setdefault(key[0], {})[key[1]] = turn + 1 / self._weight_of(key[0])
                return key
            return None
        finally:
            for each in at_limit:
                heapq.heappush(self._turns, each)

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
                # Other workers have moved the clock during its slice. A slow slice earns no more than that one turn.
                self._enqueue(key, leaders, _ARREARS)
            # Even without more work: another follower may have waited for this tenant's limit.
            self._changed.notify()

    def block(self, key: Key, leaders: Iterable[str], seconds: float) -> None:
        """Hold a follower back for some seconds, or with ``math.inf`` until :meth:`unblock`, and enqueue it then."""
        with self._changed:
            until = time.monotonic() + seconds
            self._number_of.pop(key, None)
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
                self._enqueue(key, blocked[1])
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
                    self._enqueue(key, blocked[1])
        return self._ends[0][0] - now if self._ends else math.inf

    def drop(self, tenant_id: UUID) -> None:
        """Remove a tenant's followers; a running slice continues."""
        with self._changed:
            self._next_turn.pop(tenant_id, None)
            for waiting in (self._ready, self._number_of, self._blocked):
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
