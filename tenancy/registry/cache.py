"""Process-local cache of the registry: never older than a second while the registry answers.

Every call of a tenant's application passes :meth:`RegistryCache.admit`, which reads memory. From time to time exactly
one caller first asks the registry for changes: one query by key, which mostly finds nothing. The changes come from the
registry's events, and no reader ever misses one. So every process refuses a suspended tenant within a second, also
through objects that were handed out before, without a thread and without a round trip for each call.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from eventsourcing_sqlalchemy.locks import at_fork
from eventsourcing_sqlalchemy.shared_resources import Reference, SharedResources
from tenancy import context
from tenancy.errors import ReadOnlyScope, RegistryUnavailable, TenantPurged
from tenancy.model.encodings import PLAIN, Encoding, check_encoding
from tenancy.model.tenant import Tenant, TenantStatus, check_status
from tenancy.registry import FLEET_ID, Registry
from tenancy.registry.domain_map import DomainMap
from tenancy.registry.domain_store import DomainStore

if TYPE_CHECKING:
    from tenancy.settings import TenancySettings

__all__ = ["DELAY", "RegistryCache", "acquire_registry_cache", "registry_caches"]

DELAY: Final = 1.0
"""Seconds until a status change is in force in every process whose registry answers."""

_QUERY_INTERVAL: Final = 0.4
# While one thread queries the registry, others use cached data up to this age. Seconds.
_WAIT_AGE: Final = 0.8
# How long others wait for the registry's answer before they use older cached data. Seconds.
_SILENCE: Final = 3.0
_MAX_CACHED: Final = 20_000


class RegistryCache:
    """Cached tenants of one registry. Safe to use from many threads."""

    def __init__(self, settings: TenancySettings) -> None:
        self.registry = Registry(settings)
        self._domain_store = DomainStore(self.registry)
        self._max_outage = max(settings.max_outage, DELAY)
        self.start()

    def start(self) -> None:
        """Start empty, also in the child of a fork, where the threads that held the locks do not exist."""
        # Guards the cached data; held for operations in memory only.
        self._lock = threading.Lock()
        # Held by the thread that queries the registry, until it answers.
        self._querying = threading.Lock()
        self._watchers: tuple[Callable[[set[UUID]], None], ...] = ()
        # None stands for a purged tenant.
        self._by_id: OrderedDict[UUID, Tenant | None] = OrderedDict()
        self._by_slug: OrderedDict[str, UUID] = OrderedDict()
        self._unknown_slugs: OrderedDict[str, None] = OrderedDict()
        self._domains = DomainMap(self._domain_store.serving)
        self._encodings: dict[str, Encoding] | None = None
        self._position: int | None = None
        # The number of invalidations so far.
        self._changes = 0
        self._query_started_at = -float("inf")
        self._queried_at = -float("inf")
        self._failed_at = -float("inf")

    # -- cached data --

    def admit(self, tenant_id: UUID, *, writes: bool) -> Tenant:
        """Return a tenant; raises a TenantUnavailable unless it may be read, or with ``writes`` written."""
        tenant = None
        if time.monotonic() - self._queried_at < _QUERY_INTERVAL:  # as refresh() does, without another call
            tenant = self._by_id.get(tenant_id)
        if tenant is None:
            tenant = self.latest(tenant_id)
        operator = context.operator_access(tenant_id)
        if operator is not None and writes:
            msg = f"Tenant {tenant.slug!r} is open for reading only: its scope is an operator's."
            raise ReadOnlyScope(msg, remedy="Write in a scope without as_operator.", tenant=tenant.slug)
        status = tenant.status
        if status is TenantStatus.ACTIVE or (status is TenantStatus.PROVISIONING and context.is_creating(tenant_id)):
            return tenant
        check_status(tenant, writes=writes, as_operator=operator == "open")
        return tenant

    def latest(self, tenant_id: UUID) -> Tenant:
        """Return the tenant with an id; raises TenantPurged."""
        tenant = self.get(tenant_id)
        if tenant is None:
            msg = f"The tenant with the id {tenant_id} has been purged."
            raise TenantPurged(msg, tenant=str(tenant_id))
        return tenant

    def get(self, tenant_id: UUID) -> Tenant | None:
        """Return the tenant with an id, or None if it was purged."""
        self.refresh()
        try:
            return self._by_id[tenant_id]
        except KeyError:
            changes = self._changes
            tenant = self.registry.get(tenant_id)
            self._remember(changes, tenant_id, tenant)
            return tenant

    def known(self, tenant_id: UUID | str) -> Tenant | None:
        """Return the tenant with an id as far as it is cached; never waits, and never raises."""
        if not isinstance(tenant_id, UUID):
            try:
                tenant_id = UUID(tenant_id)
            except ValueError:
                return None
        return self._by_id.get(tenant_id)

    def find(self, slug: str) -> Tenant | None:
        """Return the tenant with a normalized slug, or None."""
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
                _trim(self._unknown_slugs)
        return None

    def recall(self, slug: str) -> tuple[bool, Tenant | None]:
        """Return True and the result of :meth:`find` if it is cached, otherwise (False, None).

        Never waits, so an event loop can call it.
        """
        return self._look_up(slug) if self._is_fresh() else (False, None)

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._queried_at < _QUERY_INTERVAL

    def find_domain(self, host: str) -> Tenant | None:
        """Return the tenant that a verified domain leads to, or None; ``host`` is normalized."""
        self.refresh()
        tenant_id = self._domains.find(host)
        return None if tenant_id is None else self.get(tenant_id)

    def recall_domain(self, host: str) -> tuple[bool, Tenant | None]:
        """Return True and the result of :meth:`find_domain` if it is cached, otherwise (False, None). Never waits."""
        is_known, tenant_id = self._domains.recall(host) if self._is_fresh() else (False, None)
        if not is_known or tenant_id is None:
            return is_known, None
        return self.recall_id(tenant_id)

    def recall_id(self, tenant_id: UUID) -> tuple[bool, Tenant | None]:
        """Return True and the result of :meth:`get` if it is cached, otherwise (False, None). Never waits."""
        if not self._is_fresh() or tenant_id not in self._by_id:
            return False, None
        return True, self._by_id.get(tenant_id)

    def _look_up(self, slug: str) -> tuple[bool, Tenant | None]:
        tenant_id = self._by_slug.get(slug)
        tenant = None if tenant_id is None else self._by_id.get(tenant_id)
        if tenant is not None and tenant.slug == slug:
            return True, tenant
        # Not a tenant found by id only: it was renamed.
        return slug in self._unknown_slugs, None

    def _remember(self, changes: int, tenant_id: UUID, tenant: Tenant | None) -> None:
        with self._lock:
            # Data read before an invalidation may be older than the change.
            if changes == self._changes:
                self._by_id[tenant_id] = tenant
                _trim(self._by_id)
                if tenant is not None:
                    self._by_slug[tenant.slug] = tenant_id
                    _trim(self._by_slug)

    def check_encoding(self, application: str, used: Encoding) -> None:
        """Raise EncodingMismatch when the fleet stores an application's events with another cipher or compressor."""
        encodings = self._encodings
        if encodings is not None and encodings.get(application, PLAIN) == used:
            return
        # Also before raising: it may have been recorded just now.
        self.refresh()
        changes = self._changes
        encodings = self.registry.encodings()
        with self._lock:
            if changes == self._changes:
                self._encodings = encodings
        check_encoding(application, used, encodings.get(application, PLAIN))

    def forget(self, tenant_id: UUID) -> None:
        """Drop a tenant from the cache: this process has changed it."""
        self._forget([tenant_id])

    def _forget(self, tenant_ids: Collection[UUID]) -> None:
        self._domains.forget(tenant_ids)
        with self._lock:
            self._changes += 1
            for tenant_id in tenant_ids:
                self._by_id.pop(tenant_id, None)
                if tenant_id == FLEET_ID:
                    self._encodings = None
            self._unknown_slugs.clear()

    # -- changes --

    def refresh(self) -> None:
        """Query the registry for changes, unless another thread has just done so.

        Raises RegistryUnavailable when the registry has not answered for longer than TENANCY_MAX_OUTAGE.
        """
        now = time.monotonic()
        age = now - self._queried_at
        if age < _QUERY_INTERVAL:
            return
        if self._has_just_failed(now) or not self._querying.acquire(timeout=self._time_to_wait(now, age)):
            self._check_outage(now)
            return
        try:
            now = time.monotonic()
            if now - self._queried_at < _QUERY_INTERVAL:
                return
            # The query that this thread waited for may have failed. Without this check, all waiting threads would query
            # in turn, each until its own timeout.
            if self._has_just_failed(now):
                self._check_outage(now)
                return
            self._query_started_at = now
            try:
                self._query()
            except RegistryUnavailable:
                self._failed_at = time.monotonic()  # the next thread does not retry at once
                if self._failed_at - self._queried_at > self._max_outage:
                    raise
            else:
                self._queried_at = now
        finally:
            self._querying.release()

    def _has_just_failed(self, now: float) -> bool:
        return self._failed_at > self._queried_at and now - self._failed_at < DELAY

    def _time_to_wait(self, now: float, age: float) -> float:
        """Return how long to wait for the thread that queries the registry.

        Zero while the cached data is young enough, and after a failed query, unless the data is too old to be used.
        """
        if age <= _WAIT_AGE or self._failed_at > self._queried_at:
            return 0.0
        if age > self._max_outage:
            return self._max_outage
        since = self._query_started_at if self._query_started_at > self._queried_at else now
        return max(0.0, since + _SILENCE - now)

    def _check_outage(self, now: float) -> None:
        if now - self._queried_at > self._max_outage:
            msg = "The registry does not answer, and the cached tenants are too old to be used."
            raise RegistryUnavailable(msg, remedy="Check the registry's server.")

    def _query(self) -> None:
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
        """Use the registry while no other thread queries it for changes, so that one connection is enough for both."""
        with self._querying:
            # Waiting threads wait no longer than for a query.
            self._query_started_at = time.monotonic()
            yield

    def watch(self, changed: Callable[[set[UUID]], None]) -> Callable[[], None]:
        """Call ``changed`` with the ids of changed tenants whenever :meth:`refresh` finds some; return a function that
        ends it.
        """
        with self._lock:
            self._watchers = (*self._watchers, changed)
        return lambda: self._unwatch(changed)

    def _unwatch(self, changed: Callable[[set[UUID]], None]) -> None:
        with self._lock:
            self._watchers = tuple(each for each in self._watchers if each is not changed)

    def read(self, ids: Sequence[UUID] | None = None) -> dict[UUID, Tenant]:
        """Read some tenants, or all active ones, from the registry in few queries, and cache them."""
        changes = self._changes
        if ids is None:
            found = {tenant.id: tenant for tenant in self.registry.list(TenantStatus.ACTIVE)}
        else:
            found = self.registry.get_many(ids)
        for tenant in found.values():
            self._remember(changes, tenant.id, tenant)
        return found

    def close(self) -> None:
        """Close the registry's connections."""
        self.registry.close()


def _trim(known: OrderedDict[Any, Any]) -> None:
    if len(known) > _MAX_CACHED:
        known.popitem(last=False)


registry_caches: SharedResources[RegistryCache] = SharedResources(RegistryCache.close)
"""The caches of this process, by the registry's database and schema."""


def acquire_registry_cache(settings: TenancySettings) -> Reference[RegistryCache]:
    """Return a reference to the process's cache of a registry; the last one that is released closes its connections."""
    key = (settings.control_url, settings.control_creator_topic, settings.control_schema)
    reference = registry_caches.find(key)
    if reference is None:
        # Outside of the lock: a topic's module may be imported.
        created = RegistryCache(settings)
        reference = registry_caches.acquire(key, lambda: created)
        if reference.resource is not created:
            created.close()  # another thread was faster
    return reference


def _after_fork() -> None:
    for registry_cache in registry_caches:
        registry_cache.start()


at_fork(after_in_child=_after_fork)
