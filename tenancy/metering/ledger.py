"""The ledger: the accounts of tenants with quotas in this process, and the thread that refreshes them.

The thread starts with the first event of a tenant that has quotas. It refreshes, at most once a second, the accounts of
the tenants that this process has recorded events of since, by a rollup of all their tables.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID
from weakref import WeakValueDictionary

from eventsourcing_sqlalchemy.background import Activity, keep_running
from eventsourcing_sqlalchemy.locks import at_fork, renew_after_fork
from eventsourcing_sqlalchemy.shared_resources import Reference, SharedResources
from tenancy.isolation.connections import open_datastore
from tenancy.metering.account import Account
from tenancy.metering.rollup import Rollup
from tenancy.metering.tables import events_tables
from tenancy.model.application_spec import ApplicationSpec
from tenancy.registry.cache import acquire_registry_cache
from tenancy.registry.usage import CountStore

if TYPE_CHECKING:
    from tenancy.model.placement import Placement
    from tenancy.model.tenant import Tenant
    from tenancy.model.usage import Count
    from tenancy.settings import TenancySettings

__all__ = ["INTERVAL", "Ledger", "acquire_ledger"]

logger = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""The least time in seconds between two refreshes of a tenant's account."""
# Seconds for which a fork waits for the end of a refresh.
_PAUSE: Final = 5.0


class Ledger:
    """The accounts of one fleet. Safe to use from many threads, and after a fork."""

    def __init__(self, settings: TenancySettings) -> None:
        self._registry_reference = acquire_registry_cache(settings)
        self._registry = self._registry_reference.resource.registry
        self._datastore = open_datastore(settings)
        self._rollup = Rollup(self._datastore, CountStore(self._registry))
        self._specs: Sequence[ApplicationSpec] | None = None
        # An account lives as long as an application of its tenant uses it.
        self._accounts: WeakValueDictionary[UUID, Account] = WeakValueDictionary()
        self._activity = Activity("quotas", "Refreshing the accounts of tenants with quotas fails", logger)
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Start without a thread, also in the child of a fork."""
        # Guards the fields below, for in-memory operations and the start of the thread.
        self._lock = threading.RLock()
        self._touched: dict[UUID, Tenant] = {}
        self._is_touched = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        # Held during a refresh: the next one must not begin before its results are in the accounts.
        self._refreshing = threading.Lock()

    def account(self, tenant: Tenant) -> Account:
        """Return the account of a tenant."""
        with self._lock:
            return self._accounts.setdefault(tenant.id, Account())

    def touch(self, tenant: Tenant) -> None:
        """Let the thread refresh a tenant's account soon."""
        if tenant.id in self._touched:
            return
        with self._lock:
            self._touched[tenant.id] = tenant
            self._is_touched.set()
            if self._thread is None and not self._stopping.is_set():
                thread = threading.Thread(target=self._run, name="tenancy-quotas", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no more threads: the next event tries again
                    self._touched.clear()
                    self._activity.failed(error)
                else:
                    self._thread = thread

    def refresh(self, tenants: Collection[Tenant]) -> None:
        """Read what tenants have recorded, now."""
        with self._refreshing:
            self._refresh(tenants)

    def know(self, tenant: Tenant, account: Account) -> None:
        """Read what a tenant has recorded, unless another thread has just done so."""
        with self._refreshing:
            if not account.is_known:
                self._refresh([tenant])

    def _refresh(self, tenants: Collection[Tenant]) -> None:
        accounts = {each.id: account for each in tenants if (account := self._accounts.get(each.id)) is not None}
        some = [each for each in tenants if each.id in accounts]
        tables = events_tables(some, self._application_specs(), self._default_schema_of)
        for account in accounts.values():
            account.begin_refresh()
        found: dict[UUID, dict[str, Count]] = {tenant_id: {} for tenant_id in accounts}
        for (tenant_id, application), count in self._rollup.run(tables).items():
            found[tenant_id][application] = count
        for tenant_id, account in accounts.items():
            account.end_refresh(found[tenant_id])

    def _application_specs(self) -> Sequence[ApplicationSpec]:
        if self._specs is None:
            recorded = self._registry.fleet_settings().get("applications", [])
            self._specs = [ApplicationSpec.from_json(each) for each in recorded]
        return self._specs

    def _default_schema_of(self, placement: Placement) -> str | None:
        return None if placement.schema else self._datastore.default_schema()

    def _run(self) -> None:
        keep_running(self._activity, self._refresh_touched, self._stopping)

    def _refresh_touched(self) -> bool:
        self._is_touched.wait()
        if self._stopping.is_set():
            return False
        with self._lock:
            self._is_touched.clear()
            touched, self._touched = self._touched, {}
        try:
            self.refresh(touched.values())
        except BaseException:
            with self._lock:
                self._touched = touched | self._touched
                self._is_touched.set()
            raise
        return not self._stopping.wait(INTERVAL)

    def pause(self) -> bool:
        """Let no refresh begin until :meth:`go_on`; return whether the one under way has ended within some seconds."""
        return self._refreshing.acquire(timeout=_PAUSE)

    def go_on(self) -> None:
        """Allow refreshes again."""
        self._refreshing.release()

    def close(self) -> None:
        """End the thread, and release the connections."""
        self._stopping.set()
        self._is_touched.set()
        self._datastore.close()
        self._registry_reference.release()


_ledgers: SharedResources[Ledger] = SharedResources(Ledger.close)


def acquire_ledger(settings: TenancySettings) -> Reference[Ledger]:
    """Return a reference to the process's ledger of a fleet; the last one that is released ends its thread."""
    control = (settings.control_url, settings.control_creator_topic, settings.control_schema)
    key = (*control, settings.url, settings.creator_topic)
    reference = _ledgers.find(key)
    if reference is None:
        # Outside of the lock: a topic's module may be imported.
        created = Ledger(settings)
        reference = _ledgers.acquire(key, lambda: created)
        if reference.resource is not created:
            created.close()  # another thread was faster
    return reference


_paused: list[Ledger] = []


def _before_fork() -> None:
    # A database library may not notice that a connection in use is in another process, so such a fork makes the
    # database unusable in the child. The code that forks cannot know when the thread uses one.
    _paused.extend(ledger for ledger in _ledgers if ledger.pause())


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop().go_on()


at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_paused.clear)
