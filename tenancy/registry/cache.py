"""Process-local cache of the registry: never older than a second while the registry answers.

Every call of a tenant's application passes :meth:`RegistryCache.admit`, which reads memory. From time to time exactly
one caller first asks the registry for changes: one query by key, which mostly finds nothing. The changes come from the
registry's events, and no reader ever misses one. So every process refuses a suspended tenant within a second, also
through objects that were handed out before, without a thread and without a round trip for each call.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from eventsourcing_sqlalchemy.locks import Lock, is_held
from tenancy.errors import RegistryUnavailable, TenantPurged
from tenancy.model.encodings import PLAIN, Encoding, check_encoding
from tenancy.model.tenant import Tenant, TenantStatus, check_status
from tenancy.registry import FLEET_ID, Registry

if TYPE_CHECKING:
    from tenancy.settings import TenancySettings

__all__ = ["DELAY", "RegistryCache", "drain", "lease_registry"]

DELAY: Final = 1.0
"""After how many seconds a change of a status is in force in every process whose registry answers."""

_ASK_INTERVAL: Final = 0.4
# Those who meet somebody who is asking go on with what is known, up to this age.
_WAIT_AGE: Final = 0.8
# How long the registry may take to answer before those who wait go on with what is known.
_SILENCE: Final = 3.0
_MAX_KNOWN: Final = 20_000


class RegistryCache:
    """The tenants that this process has met, from one registry. Safe to use from many threads."""

    def __init__(self, settings: TenancySettings) -> None:
        self.registry = Registry(settings)
        self.users = 0
        self._max_outage = max(settings.max_outage, DELAY)
        self.start()

    def start(self) -> None:
        """Know nothing: at first, and in the child of a fork, where threads that held the locks do not exist."""
        # Guards what is known, for operations in memory only.
        self._lock = threading.Lock()
        # Held by the one who asks the registry, for as long as it takes to answer.
        self._asking = threading.Lock()
        self._watchers: tuple[Callable[[set[UUID]], None], ...] = ()
        # None stands for a tenant that is gone for ever.
        self._by_id: OrderedDict[UUID, Tenant | None] = OrderedDict()
        self._by_slug: OrderedDict[str, UUID] = OrderedDict()
        self._unknown_slugs: OrderedDict[str, None] = OrderedDict()
        self._encodings: dict[str, Encoding] | None = None
        self._position: int | None = None
        # How often something that was known may have ceased to be true.
        self._changes = 0
        self._asking_since = -float("inf")
        self._asked_at = -float("inf")
        self._failed_at = -float("inf")

    # -- what is known --

    def admit(self, tenant_id: UUID, *, writes: bool) -> None:
        """Return if a tenant may be read, or with ``writes`` written; raise a TenantUnavailable otherwise."""
        tenant = self.get(tenant_id)
        if tenant is None:
            msg = f"The tenant with the id {tenant_id} has been purged."
            raise TenantPurged(msg, tenant=str(tenant_id))
        check_status(tenant, writes=writes)

    def get(self, tenant_id: UUID) -> Tenant | None:
        """Return the tenant with an id, or None when there is none any more."""
        self.refresh()
        try:
            return self._by_id[tenant_id]
        except KeyError:
            changes = self._changes
            tenant = self.registry.get(tenant_id)
            self._remember(changes, tenant_id, tenant)
            return tenant

    def find(self, slug: str) -> Tenant | None:
        """Return the tenant with a slug, which is normal, or None."""
        self.refresh()
        is_known, tenant = self._look_up(slug)
        if is_known:
            return tenant
        changes = self._changes
        tenant = self.registry.find(slug)
        if tenant is not None:
            self._remember(changes, tenant.id, tenant)
            return tenant
        with self._lock:
            if changes == self._changes:
                self._unknown_slugs[slug] = None
                _shorten(self._unknown_slugs)
        return None

    def recall(self, slug: str) -> tuple[bool, Tenant | None]:
        """Return True and what :func:`find` would, when that is known without asking; otherwise (False, None).

        Never waits, so that an event loop can call it.
        """
        if time.monotonic() - self._asked_at >= _ASK_INTERVAL:
            return False, None
        return self._look_up(slug)

    def _look_up(self, slug: str) -> tuple[bool, Tenant | None]:
        tenant_id = self._by_slug.get(slug)
        tenant = None if tenant_id is None else self._by_id.get(tenant_id)
        if tenant is not None and tenant.slug == slug:
            return True, tenant
        # Not the one found by its id: it has been renamed.
        return slug in self._unknown_slugs, None

    def _remember(self, changes: int, tenant_id: UUID, tenant: Tenant | None) -> None:
        with self._lock:
            # What was read before somebody noticed a change, or made one, may be from before that change.
            if changes == self._changes:
                self._by_id[tenant_id] = tenant
                _shorten(self._by_id)
                if tenant is not None:
                    self._by_slug[tenant.slug] = tenant_id
                    _shorten(self._by_slug)

    def check_encoding(self, application: str, used: Encoding) -> None:
        """Raise EncodingMismatch when the fleet stores an application's events with another cipher or compressor."""
        encodings = self._encodings
        # Also before it is refused: it may have been recorded just now.
        if encodings is None or encodings.get(application, PLAIN) != used:
            self.refresh()
            changes = self._changes
            encodings = self.registry.encodings()
            with self._lock:
                if changes == self._changes:
                    self._encodings = encodings
        check_encoding(application, used, encodings.get(application, PLAIN))

    def forget(self, tenant_id: UUID) -> None:
        """Ask for a tenant anew at the next call: this process has changed it."""
        self._forget([tenant_id])

    def _forget(self, tenant_ids: Iterable[UUID]) -> None:
        with self._lock:
            self._changes += 1
            for tenant_id in tenant_ids:
                self._by_id.pop(tenant_id, None)
                if tenant_id == FLEET_ID:
                    self._encodings = None
            self._unknown_slugs.clear()

    # -- what has changed --

    def refresh(self) -> None:
        """Ask the registry what has changed, unless somebody has just done so.

        Raises RegistryUnavailable when it has not answered for longer than TENANCY_MAX_OUTAGE.
        """
        now = time.monotonic()
        age = now - self._asked_at
        if age < _ASK_INTERVAL:
            return
        if self._has_just_failed(now) or not self._asking.acquire(timeout=self._time_to_wait(now, age)):
            self._check_outage(now)
            return
        try:
            now = time.monotonic()
            if now - self._asked_at < _ASK_INTERVAL:
                return
            # Who asked while this one waited may have got no answer. All who waited would ask in turn, each for as long
            # as it takes to find that out.
            if self._has_just_failed(now):
                self._check_outage(now)
                return
            self._asking_since = now
            try:
                self._ask()
            except RegistryUnavailable:
                self._failed_at = time.monotonic()  # the next one does not try again at once
                if self._failed_at - self._asked_at > self._max_outage:
                    raise
            else:
                self._asked_at = now
        finally:
            self._asking.release()

    def _has_just_failed(self, now: float) -> bool:
        return self._failed_at > self._asked_at and now - self._failed_at < DELAY

    def _time_to_wait(self, now: float, age: float) -> float:
        """Return how long to wait for the one who is asking: not while what is known is young enough, and not for a
        registry that does not answer him either, unless nothing is known that could be used instead.
        """
        if age <= _WAIT_AGE or self._failed_at > self._asked_at:
            return 0.0
        if age > self._max_outage:
            return self._max_outage
        since = self._asking_since if self._asking_since > self._asked_at else now
        return max(0.0, since + _SILENCE - now)

    def _check_outage(self, now: float) -> None:
        if now - self._asked_at > self._max_outage:
            msg = "The registry does not answer, and what is known of the tenants is too old to be trusted."
            raise RegistryUnavailable(msg, remedy="Check the server of the registry.")

    def _ask(self) -> None:
        if self._position is None:
            self._position = self.registry.position()
            return
        position, changed = self.registry.changed_since(self._position)
        if changed:
            self._forget(changed)
        self._position = position
        if changed:
            for watcher in self._watchers:
                watcher(changed - {FLEET_ID})

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Use the registry while nobody else asks it what has changed, so that one connection does for both."""
        with self._asking:
            # Whoever waits for it waits no longer than for an answer of the registry.
            self._asking_since = time.monotonic()
            yield

    def watch(self, changed: Callable[[set[UUID]], None]) -> Callable[[], None]:
        """Call ``changed`` with the ids of tenants that something has happened to, whenever that becomes known; return
        what ends it. Somebody has to call :func:`refresh`.
        """
        with self._lock:
            self._watchers = (*self._watchers, changed)
        return lambda: self._unwatch(changed)

    def _unwatch(self, changed: Callable[[set[UUID]], None]) -> None:
        with self._lock:
            self._watchers = tuple(each for each in self._watchers if each is not changed)

    def read(self, ids: Sequence[UUID] | None = None) -> dict[UUID, Tenant]:
        """Ask the registry for some tenants, or for all active ones, without a query for each, and know them then."""
        changes = self._changes
        if ids is None:
            found = {tenant.id: tenant for tenant in self.registry.list(TenantStatus.ACTIVE)}
        else:
            found = self.registry.get_many(ids)
        for tenant in found.values():
            self._remember(changes, tenant.id, tenant)
        return found

    # -- sharing --

    def release(self) -> None:
        """Give it back; the last one who does so closes the connections of the registry.

        Inside one of our locks, where only the collector can have called, this leaves a note for the next one.
        """
        if is_held():
            self.abandon()
            return
        self._give_back()
        drain()

    def _give_back(self) -> None:
        with _leasing:
            self.users -= 1
            is_last = not self.users
            if is_last:
                for key in [key for key, registry_cache in _caches.items() if registry_cache is self]:
                    del _caches[key]
        if is_last:
            self.registry.close()

    def abandon(self) -> None:
        """Let the next one who shares or releases a directory release this one; for finalizers, which may run inside
        any lock and so take none.
        """
        _abandoned.append(self)


def _shorten(known: OrderedDict[Any, Any]) -> None:
    if len(known) > _MAX_KNOWN:
        known.popitem(last=False)


_caches: dict[Hashable, RegistryCache] = {}
# Guards the dictionary and the counts; no connection is opened or closed under it.
_leasing = Lock()
_abandoned: deque[RegistryCache] = deque()


def drain() -> None:
    """Release the directories of those who were collected and had not closed."""
    while not is_held():
        try:
            registry_cache = _abandoned.popleft()
        except IndexError:  # none, or somebody else has done so meanwhile
            return
        registry_cache._give_back()  # noqa: SLF001 (there may be more of them than calls can be nested)


def lease_registry(settings: TenancySettings) -> RegistryCache:
    """Return the directory of a registry, which all of this process share; to be released once."""
    drain()
    key = (settings.control_url, settings.control_creator_topic, settings.control_schema)
    with _leasing:
        registry_cache = _caches.get(key)
        if registry_cache is not None:
            registry_cache.users += 1
            return registry_cache
    made = RegistryCache(settings)
    with _leasing:
        registry_cache = _caches.setdefault(key, made)
        registry_cache.users += 1
    if registry_cache is not made:
        made.registry.close()  # another thread was faster
    return registry_cache


def _after_fork() -> None:
    global _leasing  # noqa: PLW0603 (another thread of the parent may have held it, and that thread does not exist here)
    _leasing = Lock()
    for registry_cache in _caches.values():
        registry_cache.start()


os.register_at_fork(after_in_child=_after_fork)
