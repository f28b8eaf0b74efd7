"""Locks that are safe with the garbage collector and forks, and the registry of fork handlers.

A collected application closes itself (the library's ``Application.__del__`` does), wherever the collector happens to
run, also inside a block that holds one of these locks. Code that takes long, or changes what the block works on, asks
:func:`is_held` first and leaves a note instead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

__all__ = ["ForkSensitive", "Lock", "at_fork", "is_held", "renew_after_fork"]


class ForkSensitive(Protocol):
    """An object with locks or threads of this process."""

    def after_fork(self) -> None:
        """Replace them, in a child process: a lock that another thread of the parent held is never released there."""


_before: list[Callable[[], None]] = []
_after_in_parent: list[Callable[[], None]] = []
_after_in_child: list[Callable[[], None]] = []
_sensitive: WeakSet[ForkSensitive] = WeakSet()


def at_fork(
    *,
    before: Callable[[], None] | None = None,
    after_in_parent: Callable[[], None] | None = None,
    after_in_child: Callable[[], None] | None = None,
) -> None:
    """Call functions before each fork of this process, and after it in the parent, and in the child once all locks are
    replaced. Those before it run in reverse order: what was registered later may use what was registered earlier.
    """
    if before is not None:
        _before.append(before)
    if after_in_parent is not None:
        _after_in_parent.append(after_in_parent)
    if after_in_child is not None:
        _after_in_child.append(after_in_child)


def renew_after_fork(sensitive: ForkSensitive) -> None:
    """Call :func:`ForkSensitive.after_fork` in the child of each fork, as long as the object exists."""
    _sensitive.add(sensitive)


class _Held(threading.local):
    count = 0


_held = _Held()


class Lock:
    """A lock for a few operations in memory. In the child of a fork it is free."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()
        _held.count += 1

    def __exit__(self, *_: object) -> None:
        _held.count -= 1
        self._lock.release()


def is_held() -> bool:
    """Return whether the running thread holds any of these locks."""
    return _held.count > 0


def _before_fork() -> None:
    for call in reversed(_before):
        call()


def _after_fork_in_parent() -> None:
    for call in _after_in_parent:
        call()


def _after_fork() -> None:
    for sensitive in list(_sensitive):
        sensitive.after_fork()
    for call in _after_in_child:
        call()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
