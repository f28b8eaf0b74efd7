"""What can be observed of recorders and of the connection pool, for metrics and traces built on this package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

__all__ = ["Observer", "PoolStatus"]

_T = TypeVar("_T")


class Observer(Protocol):
    """Runs the calls of recorders, and observes them. Set it as ``observer`` of a class of datastores.

    Each method returns what ``call`` returns, and raises what it raises. ``table`` is the table of the events or
    snapshots, and ``kind`` says which of both. Without an observer, a recorder only looks for one.
    """

    def append(self, datastore: Any, kind: str, table: object, count: int, call: Callable[[], _T]) -> _T:
        """Append ``count`` events, or snapshots, in a transaction of its own or in an open one."""

    def read(self, datastore: Any, kind: str, table: object, call: Callable[[], _T]) -> _T:
        """Read events, snapshots or notifications."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """The connections of an engine."""

    in_use: int
    idle: int
    limit: int
    """The most connections that the pool opens; -1 for no limit."""
    waits: int
    """How often a thread waited because all connections were in use."""
    wait_seconds: float
    """How long threads waited, in all."""
    timeouts: int
    """How many of these waits ended without a connection."""
