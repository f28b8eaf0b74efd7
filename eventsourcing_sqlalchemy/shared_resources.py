"""Resources that a process shares by key: counted by reference, and closed when the last reference is released."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from eventsourcing_sqlalchemy.locks import Lock, is_held

__all__ = ["Reference", "SharedResources"]

_R = TypeVar("_R")


class _Shared(Generic[_R]):
    """A resource, its key, and the number of its references."""

    __slots__ = ("count", "key", "resource")

    def __init__(self, key: Hashable, resource: _R) -> None:
        self.key = key
        self.resource = resource
        self.count = 0


class Reference(Generic[_R]):
    """The right to use a resource, until it is released: by :meth:`release`, or with its owner."""

    def __init__(self, resources: SharedResources[_R], shared: _Shared[_R]) -> None:
        self.resource = shared.resource
        self.shared = shared
        self.is_released = False
        self._resources = resources
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def release(self) -> None:
        """Release the reference; a second call does nothing.

        Inside one of our locks, where only the collector can have called, this leaves a note for the next release.
        """
        if self._finalizer is not None:
            self._finalizer.detach()
        self._resources.release(self)

    def release_when_collected(self, owner: object) -> None:
        """Release the reference when ``owner`` is collected, for owners that are never closed."""
        self._finalizer = weakref.finalize(owner, self._resources.abandon, self)
        self._finalizer.atexit = False


class SharedResources(Generic[_R]):
    """The resources of one kind; ``close`` closes one, outside of all locks. Safe to use from many threads."""

    def __init__(self, close: Callable[[_R], None]) -> None:
        self._close = close
        # Guards the resources and their counts; nothing is closed under it.
        self._lock = Lock()
        # Look up seldom: SQLAlchemy renders a URL each time it is hashed.
        self._shared: dict[Hashable, _Shared[_R]] = {}
        self._abandoned: deque[Reference[_R]] = deque()
        self._unused: deque[_R] = deque()

    def __iter__(self) -> Iterator[_R]:
        """Iterate over the resources in use."""
        return iter([shared.resource for shared in list(self._shared.values())])

    def find(self, key: Hashable) -> Reference[_R] | None:
        """Return another reference to a resource in use, or None."""
        self.drain()
        with self._lock:
            shared = self._shared.get(key)
            return None if shared is None else self._add(shared)

    def acquire(self, key: Hashable, create: Callable[[], _R]) -> Reference[_R]:
        """Return a reference to a resource; for its first one, ``create`` is called, under the lock."""
        with self._lock:
            shared = self._shared.get(key)
            if shared is None:
                shared = self._shared[key] = _Shared(key, create())
            reference = self._add(shared)
        try:
            self.drain()
        except BaseException:
            # Closing another resource was interrupted, and the caller gets no reference to release.
            self._remove(reference)
            raise
        return reference

    def _add(self, shared: _Shared[_R]) -> Reference[_R]:
        shared.count += 1
        return Reference(self, shared)

    def release(self, reference: Reference[_R]) -> None:
        """Release a reference; see :meth:`Reference.release`."""
        if is_held():
            self.abandon(reference)
            return
        self._remove(reference)
        self.drain()

    def abandon(self, reference: Reference[_R]) -> None:
        """Leave a reference to the next call that acquires or releases one.

        For finalizers, which run anywhere, also inside a lock that closing the resource would need.
        """
        self._abandoned.append(reference)

    def drain(self) -> None:
        """Release abandoned references, and close the unused resources; nothing inside our locks."""
        # A loop: there may be more of them than calls can be nested.
        while not is_held():
            try:
                reference = self._abandoned.popleft()
            except IndexError:  # none, or another thread was faster
                break
            self._remove(reference)
        while not is_held():
            try:
                resource = self._unused.popleft()
            except IndexError:
                return
            self._close(resource)

    def _remove(self, reference: Reference[_R]) -> None:
        with self._lock:
            if reference.is_released:
                return
            reference.is_released = True
            shared = reference.shared
            shared.count -= 1
            if not shared.count:
                del self._shared[shared.key]
                self._unused.append(shared.resource)
