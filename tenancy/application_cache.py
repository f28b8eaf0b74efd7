"""The applications of tenants that this process has at hand: one object for each class and tenant.

An application has no thread and no connection of its own, only some kilobytes of memory. Those used last are kept; one
that is put out is closed as soon as nobody uses it any more.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast
from uuid import UUID
from weakref import WeakValueDictionary

from eventsourcing_sqlalchemy.locks import renew_after_fork
from tenancy.errors import TenancyClosed

__all__ = ["ApplicationCache"]


class Closable(Protocol):
    """An application, or a projection with its view."""

    @property
    def closing(self) -> threading.Event:
        """Set when it has been closed, by whoever has it."""

    def close(self) -> None:
        """Give back what it uses."""


_T = TypeVar("_T", bound=Closable)
_Key = tuple[type[Any], UUID]


class ApplicationCache:
    """A bounded cache. Safe to use from many threads: who comes first constructs, the others wait for that one only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[_Key, Closable] = OrderedDict()
        # Also those that were put out while somebody uses them: two objects for one tenant would have two caches of
        # aggregates.
        self._alive: WeakValueDictionary[_Key, Closable] = WeakValueDictionary()
        self._is_closed = False
        self.after_fork()
        renew_after_fork(self)

    def __len__(self) -> int:
        return len(self._kept)

    def after_fork(self) -> None:
        """Make new locks: at first, and in the child of a fork, where threads that held the locks do not exist."""
        # Guards the dictionaries, for operations in memory only.
        self._lock = threading.Lock()
        # Each is there as long as somebody constructs that application, or waits for it.
        self._making: WeakValueDictionary[_Key, threading.RLock] = WeakValueDictionary()

    def get(self, cls: type[Any], tenant_id: UUID, construct: Callable[[], _T]) -> _T:
        """Return what a tenant has of a class, which ``construct`` makes when there is none, or somebody has closed it.

        Raises TenancyClosed when all have been closed.
        """
        key = (cls, tenant_id)
        found = self._find(key)
        if found is None:
            with self._lock:
                making = self._making.setdefault(key, threading.RLock())
            # Blocks only those who want the same application of the same tenant, for as long as it takes to construct.
            with making:
                found = self._find(key)
                if found is None:
                    found = construct()
                    self._keep(key, found)
        return cast("_T", found)

    def _find(self, key: _Key) -> Closable | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None and not found.closing.is_set():
                self._kept.move_to_end(key)
                return found
        found = self._alive.get(key)
        if found is None or found.closing.is_set():
            return None
        self._keep(key, found)
        return found

    def _keep(self, key: _Key, application: Closable) -> None:
        put_out = []
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                put_out = [self._kept.pop(key, None)]
                self._alive[key] = self._kept[key] = application
                if len(self._kept) > self._limit:
                    put_out.append(self._kept.popitem(last=False)[1])
        # Outside of the lock: what nobody else has is collected, and so closed, here.
        put_out.clear()
        if is_closed:
            application.close()
            raise TenancyClosed

    def forget(self, tenant_id: UUID) -> None:
        """Put out the applications of a tenant."""
        with self._lock:
            put_out = [self._kept.pop(key) for key in list(self._kept) if key[1] == tenant_id]
        put_out.clear()  # closes outside of the lock, as above

    def close(self) -> None:
        """Close all applications, also those that somebody still holds or constructs."""
        with self._lock:
            self._is_closed = True
            alive = list(self._alive.values())
            self._kept.clear()
        for application in alive:
            application.close()
