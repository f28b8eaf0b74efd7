"""Locks in whose blocks the garbage collector may run, and with it code of ours.

A collected application closes itself (the library's ``Application.__del__`` does), wherever the collector happens to
run, also inside a block that holds one of these locks. What takes long, or changes what the block works on, asks
:func:`is_held` first and leaves a note instead.
"""

from __future__ import annotations

import threading

__all__ = ["Lock", "is_held"]


class _Held(threading.local):
    count = 0


_held = _Held()


class Lock:
    """A lock for a few operations in memory."""

    def __init__(self) -> None:
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
