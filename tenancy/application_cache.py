"""The process's cache of tenant applications and projections: one object for each class and tenant.

An application has no thread and no connection of its own, only some kilobytes of memory. The cache keeps the most
recently used ones. An evicted application is closed when its last reference is gone.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar, cast
from uuid import UUID
from weakref import WeakValueDictionary

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.locks import renew_after_fork
from tenancy.errors import TenancyClosed
from tenancy.model.projections import RegisteredProjection

__all__ = ["ApplicationCache", "TenantProjection"]


class Closable(Protocol):
    """An application, or a projection with its view."""

    @property
    def closing(self) -> threading.Event:
        """Set once it has been closed."""

    def close(self) -> None:
        """Release its resources."""


class TenantProjection:
    """A projection of one tenant with its view."""

    def __init__(self, registered: RegisteredProjection, process: Mapping[str, str], env: Mapping[str, str]) -> None:
        # Unlike an application, a factory does not add the process's environment.
        factory: InfrastructureFactory[Any] = InfrastructureFactory.construct(
            Environment(registered.projection.name, {**process, **env})
        )
        self.view = factory.tracking_recorder(registered.view)
        self.projection = registered.projection(self.view)
        self.closing = threading.Event()
        # Tied to the view, because a caller may keep only the view.
        self._close = weakref.finalize(self.view, factory.close)

    def __repr__(self) -> str:
        return f"TenantProjection({type(self.projection).__name__}, view={self.view!r})"

    def close(self) -> None:
        """Release the engine."""
        self.closing.set()
        self._close()


_T = TypeVar("_T", bound=Closable)
_Key = tuple[type[Any], UUID]


class ApplicationCache:
    """A bounded cache. Safe to use from many threads.

    The first caller constructs an application; other callers wait for that one only.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[_Key, Closable] = OrderedDict()
        # Also evicted ones that are still in use: two objects for one tenant would have two caches of aggregates.
        self._alive: WeakValueDictionary[_Key, Closable] = WeakValueDictionary()
        self._is_closed = False
        self.hits = 0
        self.misses = 0
        self.after_fork()
        renew_after_fork(self)

    def __len__(self) -> int:
        return len(self._kept)

    def after_fork(self) -> None:
        """Create new locks, also in the child of a fork, where the threads that held the locks do not exist."""
        # Guards the dictionaries; held for operations in memory only.
        self._lock = threading.Lock()
        # A lock exists while a thread constructs that application, or waits for it.
        self._constructing: WeakValueDictionary[_Key, threading.RLock] = WeakValueDictionary()

    def get(self, cls: type[Any], tenant_id: UUID, construct: Callable[[], _T]) -> _T:
        """Return a tenant's application, constructed by ``construct`` if it is missing or closed.

        Raises TenancyClosed after close().
        """
        key = (cls, tenant_id)
        found = self._find(key)
        if found is None:
            with self._lock:
                constructing = self._constructing.setdefault(key, threading.RLock())
            # Blocks only threads that need the same application of the same tenant, during its construction.
            with constructing:
                found = self._find(key)
                if found is None:
                    with self._lock:
                        self.misses += 1
                    found = construct()
                    self._keep(key, found)
        return cast("_T", found)

    def _find(self, key: _Key) -> Closable | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None and not found.closing.is_set():
                self._kept.move_to_end(key)
                self.hits += 1
                return found
        found = self._alive.get(key)
        if found is None or found.closing.is_set():
            return None
        self._keep(key, found)
        return found

    def _keep(self, key: _Key, application: Closable) -> None:
        evicted = []
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                evicted = [self._kept.pop(key, None)]
                self._alive[key] = self._kept[key] = application
                if len(self._kept) > self._limit:
                    evicted.append(self._kept.popitem(last=False)[1])
        # Outside of the lock: this may drop the last reference, which closes the application.
        evicted.clear()
        if is_closed:
            application.close()
            raise TenancyClosed

    def forget(self, tenant_id: UUID) -> None:
        """Evict a tenant's applications."""
        with self._lock:
            evicted = [self._kept.pop(key) for key in list(self._kept) if key[1] == tenant_id]
        evicted.clear()  # closes outside of the lock, as above

    def close(self) -> None:
        """Close all applications, also evicted ones that are in use and those under construction."""
        with self._lock:
            self._is_closed = True
            alive = list(self._alive.values())
            self._kept.clear()
        with ExitStack() as resources:  # also when one of them raises
            for application in alive:
                resources.callback(application.close)
