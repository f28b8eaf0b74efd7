"""Keep the library's caches of aggregates free of what is not committed.

The library's repository knows nothing of transactions: it caches what a transaction has read or saved, and returns
that to other threads, and after a rollback. So calls that run in a session bypass the cache. While events of an
aggregate are in a transaction that has not ended, no cache holds that aggregate.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from eventsourcing.application import Cache

from eventsourcing_sqlalchemy.locks import Lock, renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from eventsourcing.persistence import StoredEvent
    from sqlalchemy.engine import RootTransaction
    from sqlalchemy.orm import Session

__all__ = ["AggregateCaches", "CommittedCache"]


class AggregateCaches:
    """The caches of aggregates whose events one recorder records."""

    def __init__(self, current_session: Callable[[], Session | None]) -> None:
        self._current_session = current_session
        self._caches: WeakSet[Cache[Any, Any]] = WeakSet()
        self._dropping_refused: WeakSet[Cache[Any, Any]] = WeakSet()
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's transactions, and which of its threads held the lock."""
        self._lock = Lock()
        # Polled, because no event of SQLAlchemy follows every end of a transaction: a session's commit may release a
        # savepoint of the user's connection, and a connection's events come before its commit.
        self._written: WeakKeyDictionary[RootTransaction, set[UUID | str]] = WeakKeyDictionary()

    def protect(self, cache: Cache[Any, Any], *, drops_refused: bool) -> CommittedCache:
        """Return a cache that stores in the given one what is committed.

        ``drops_refused`` tells that an aggregate whose events were refused must go: either callers change the cached
        object itself, so that it holds these events, or it is never fast-forwarded, so that the next try meets the same
        conflict.
        """
        self._caches.add(cache)
        if drops_refused:
            self._dropping_refused.add(cache)
        renew_after_fork(self)
        return CommittedCache(cache, self)

    def wrote(self, session: Session, stored_events: Sequence[StoredEvent]) -> None:
        """Keep the aggregates of events out of the caches until the transaction of a session ends."""
        transaction = session.connection().get_transaction() if self._caches else None
        if transaction is not None:
            with self._lock:
                written = self._written.setdefault(transaction, set())
                written.update(event.originator_id for event in stored_events)
                _drop(self._caches, written)

    def refused(self, stored_events: Sequence[StoredEvent]) -> None:
        """Drop the aggregates of events that were not recorded, where the cache was said to."""
        with self._lock:
            _drop(self._dropping_refused, {event.originator_id for event in stored_events})

    def get(self, cache: Cache[Any, Any], key: Any, *, evict: bool) -> Any:
        """Return what a cache holds; raises KeyError where it must not be used, unless to evict."""
        with self._lock:
            if not evict and not self._is_committed(key):
                raise KeyError(key)
            return cache.get(key, evict=evict)

    def put(self, cache: Cache[Any, Any], key: Any, value: Any) -> Any:
        """Store in a cache what is committed, and nothing else."""
        with self._lock:
            return cache.put(key, value) if self._is_committed(key) else None

    def _is_committed(self, key: Any) -> bool:
        if self._current_session() is not None:
            return False  # The session may see, or have changed, what only its user knows of.
        for transaction in [transaction for transaction in self._written if not transaction.is_active]:
            del self._written[transaction]
        return not any(key in written for written in self._written.values())


class CommittedCache(Cache[Any, Any]):
    """A repository's cache that is bypassed where the library's would hold what is not committed."""

    def __init__(self, cache: Cache[Any, Any], caches: AggregateCaches) -> None:
        self._inner = cache
        self._caches = caches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get(self, key: Any, *, evict: bool = False) -> Any:
        """Return a committed aggregate; raises KeyError when there is none."""
        return self._caches.get(self._inner, key, evict=evict)

    def put(self, key: Any, value: Any) -> Any:
        """Store an aggregate, unless it may hold what is not committed."""
        return self._caches.put(self._inner, key, value)


def _drop(caches: Iterable[Cache[Any, Any]], originator_ids: Iterable[UUID | str]) -> None:
    for cache in caches:
        for originator_id in originator_ids:
            with suppress(KeyError):
                cache.get(originator_id, evict=True)
