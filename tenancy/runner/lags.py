"""How far followers are behind their leaders: in events, and in seconds."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Final
from uuid import UUID

__all__ = ["FollowerLag", "Lag"]

_MAX_SAMPLES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerLag:
    """How far one tenant's follower is behind one leader."""

    tenant_id: UUID
    leader: str
    follower: str
    events: int
    """Number of ids behind the leader: an upper limit for the notifications left."""
    seconds: float
    """How long this process has known of the first of them; the sweep's interval is the precision."""


class Lag:
    """When a leader's last ids were first seen. One thread calls :meth:`saw`; any may call :meth:`behind`."""

    __slots__ = ("_last", "_samples")

    def __init__(self) -> None:
        self._last = 0
        # A last id with the time at which it was first seen, oldest first.
        self._samples: deque[tuple[float, int]] = deque()

    def saw(self, last: int, reached: int) -> None:
        """Remember the leader's last id now; ``reached`` is the follower's position."""
        samples = self._samples
        while samples and samples[0][1] <= reached:
            samples.popleft()
        if last > self._last and last > reached:
            if len(samples) == _MAX_SAMPLES:
                # Halve the precision instead of the memory's limit; the oldest one stays.
                self._samples = samples = deque(list(samples)[::2])
            samples.append((time.monotonic(), last))
        self._last = last

    def behind(self, reached: int) -> tuple[int, float]:
        """Return the number of ids behind, and the seconds since the first of them was seen."""
        events = max(0, self._last - reached)
        if not events:
            return 0, 0.0
        since = next((at for at, last in list(self._samples) if last > reached), None)
        return events, 0.0 if since is None else time.monotonic() - since
