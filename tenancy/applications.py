"""The applications of tenants that this process has at hand: one object for each class and tenant.

An application has no thread and no connection of its own, only some kilobytes of memory. Those used last are kept; one
that is put out is closed as soon as nobody uses it any more.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from uuid import UUID
from weakref import WeakValueDictionary

from eventsourcing.utils import get_topic

from tenancy.errors import TenancyError

if TYPE_CHECKING:
    from eventsourcing.application import Application

__all__ = ["Applications", "by_name"]


class Closable(Protocol):
    """An application, or a projection with its view."""

    def close(self) -> None:
        """Give back what it uses."""


_T = TypeVar("_T", bound=Closable)
_Key = tuple[type[Any], UUID]


def by_name(classes: Iterable[type[Application[Any]]]) -> dict[str, type[Application[Any]]]:
    """Return the classes by the names of the applications; raises TenancyError when two have the same."""
    named: dict[str, type[Application[Any]]] = {}
    for cls in classes:
        other = named.setdefault(cls.name, cls)
        if other is not cls:
            msg = f"Two applications have the name {cls.name!r}: {get_topic(other)} and {get_topic(cls)}."
            raise TenancyError(msg, remedy="Give one of them another name: their tables would be the same.")
    return named


class Applications:
    """A bounded cache. Safe to use from many threads: who comes first constructs, the others wait for that one only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Guards what follows, for operations in memory only.
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Closable] = OrderedDict()
        # Also those that were put out while somebody uses them: two objects for one tenant would have two caches of
        # aggregates.
        self._alive: WeakValueDictionary[_Key, Closable] = WeakValueDictionary()
        self._making: dict[_Key, threading.RLock] = {}
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, cls: type[Any], tenant_id: UUID, construct: Callable[[], _T]) -> _T:
        """Return what a tenant has of a class, which ``construct`` makes when there is none."""
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
            with self._lock:
                self._making.pop(key, None)
        return cast("_T", found)

    def _find(self, key: _Key) -> Closable | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        found = self._alive.get(key)
        if found is not None:
            self._keep(key, found)
        return found

    def _keep(self, key: _Key, application: Closable) -> None:
        put_out = None
        with self._lock:
            self._alive[key] = application
            self._kept[key] = application
            self._kept.move_to_end(key)
            if len(self._kept) > self._limit:
                put_out = self._kept.popitem(last=False)
        # Outside of the lock: when nobody else has it, it is collected, and so closed, here.
        del put_out

    def forget(self, tenant_id: UUID) -> None:
        """Put out the applications of a tenant."""
        with self._lock:
            put_out = [(key, self._kept.pop(key)) for key in list(self._kept) if key[1] == tenant_id]
        put_out.clear()

    def close(self) -> None:
        """Close all applications, also those that somebody still holds."""
        with self._lock:
            self._kept.clear()
            alive = list(self._alive.values())
        for application in alive:
            application.close()
