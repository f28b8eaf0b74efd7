"""Keep uncommitted aggregates out of the library's aggregate caches.

The library's repository is not aware of transactions: it caches an aggregate that a transaction has read or saved, and
returns it to other threads and after a rollback. Calls inside a session therefore bypass the cache, and an aggregate
with events in an open transaction is evicted until that transaction ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary, WeakSet

from eventsourcing.application import Cache
from eventsourcing.persistence import StoredEvent
from sqlalchemy.engine import RootTransaction
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.locks import Lock, renew_after_fork

__all__ = ["AggregateCaches", "CommittedCache"]


class AggregateCaches:
    """The aggregate caches of one recorder's repositories. Thread-safe."""

    def __init__(self, current_session: Callable[[], Session | None]) -> None:
        self._current_session = current_session
        self._caches: WeakSet[Cache[Any, Any]] = WeakSet()
        self._evicting_rejected: WeakSet[Cache[Any, Any]] = WeakSet()
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the transactions and locks of the parent process."""
        self._lock = Lock()
        # Transactions are polled, because SQLAlchemy has no event that follows the end of every transaction: a
        # session's commit may only release a savepoint on the user's connection, and connection events precede the
        # commit.
        self._written: WeakKeyDictionary[RootTransaction, set[UUID | str]] = WeakKeyDictionary()

    def protect(self, cache: Cache[Any, Any], *, evicts_rejected: bool) -> CommittedCache:
        """Return a wrapper that stores only committed aggregates in ``cache``.

        ``evicts_rejected`` evicts an aggregate whose events were rejected. This is needed if callers modify the cached
        object itself, which then holds those events, or if it is never fast-forwarded, because a retry would fail with
        the same conflict.
        """
        self._caches.add(cache)
        if evicts_rejected:
            self._evicting_rejected.add(cache)
        renew_after_fork(self)
        return CommittedCache(cache, self)

    def wrote(self, session: Session, stored_events: Sequence[StoredEvent]) -> None:
        """Evict the events' aggregates, and keep them uncached until the session's transaction ends."""
        transaction = session.connection().get_transaction() if self._caches else None
        if transaction is not None:
            with self._lock:
                written = self._written.setdefault(transaction, set())
                written.update(event.originator_id for event in stored_events)
                _evict(self._caches, written)

    def rejected(self, stored_events: Sequence[StoredEvent]) -> None:
        """Evict the aggregates of events that were not recorded, from caches with ``evicts_rejected``."""
        with self._lock:
            _evict(self._evicting_rejected, {event.originator_id for event in stored_events})

    def get(self, cache: Cache[Any, Any], key: Any, *, evict: bool) -> Any:
        """Return a cached aggregate; raises KeyError if it may be uncommitted, unless ``evict`` is set."""
        with self._lock:
            if not evict and not self._is_committed(key):
                raise KeyError(key)
            return cache.get(key, evict=evict)

    def put(self, cache: Cache[Any, Any], key: Any, value: Any) -> Any:
        """Store an aggregate, unless it may be uncommitted."""
        with self._lock:
            return cache.put(key, value) if self._is_committed(key) else None

    def _is_committed(self, key: Any) -> bool:
        if self._current_session() is not None:
            return False  # The session may have read or written uncommitted events.
        for transaction in [transaction for transaction in self._written if not transaction.is_active]:
            del self._written[transaction]
        return not any(key in written for written in self._written.values())


class CommittedCache(Cache[Any, Any]):
    """A repository cache that never holds uncommitted aggregates."""

    def __init__(self, cache: Cache[Any, Any], caches: AggregateCaches) -> None:
        self._inner = cache
        self._caches = caches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get(self, key: Any, *, evict: bool = False) -> Any:
        """Return a committed aggregate; raises KeyError if it is not cached."""
        return self._caches.get(self._inner, key, evict=evict)

    def put(self, key: Any, value: Any) -> Any:
        """Store an aggregate, unless it may hold uncommitted events."""
        return self._caches.put(self._inner, key, value)


def _evict(caches: Iterable[Cache[Any, Any]], originator_ids: Iterable[UUID | str]) -> None:
    for cache in caches:
        for originator_id in originator_ids:
            with suppress(KeyError):
                cache.get(originator_id, evict=True)
