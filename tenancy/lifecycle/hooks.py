"""Hooks for new tenants: the user's functions that prepare a tenant before it serves.

A hook runs at least once for a tenant, and not again once the registry has its marker. Between the hook's last effect
and the marker, the process may die: then the hook is repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy.background import pause
from eventsourcing_sqlalchemy.errors import describe
from tenancy import context
from tenancy.errors import HookFailed, NotRegistered, TenancyError, TenantNotReady
from tenancy.lifecycle.callbacks import Callback, Callbacks
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.registry.hook_runs import HookRun, HookRuns
from tenancy.registry.process_leases import ProcessLease

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenancy.registry import Registry

__all__ = ["Hook", "Hooks"]

Hook = Callable[[Tenant], object]
"""A user's function that gets the new tenant."""

# Seconds of silence after which another process runs the hooks of a tenant.
_LEASE: Final = 10.0
# Seconds to wait for the hooks that another process runs.
_WAIT: Final = 30.0
_POLL: Final = 0.02
_RECORDED: Final = "hooks"


class Hooks(Callbacks[Hook]):
    """The hooks of a fleet, in the order of their registration. Safe to use from many threads and processes."""

    def __init__(self, registry: Registry) -> None:
        super().__init__("Hook")
        self._registry = registry
        self._runs = HookRuns(registry)
        self._is_recorded = False
        self._is_checked = False

    def register(self, function: Hook, name: str | None, events: Iterable[str] = ()) -> None:
        super().register(function, name, events)
        self._is_recorded = False

    def recorded(self) -> Sequence[str]:
        """Return the names of the fleet's hooks, as the registry has them."""
        return list(self._registry.fleet_settings().get(_RECORDED, ()))

    def record(self, *, replaces: bool = False) -> None:
        """Record this process's hooks, once; with ``replaces``, also that there are no others."""
        if self._is_recorded or not (len(self) or replaces):
            return
        mine, known = [hook.name for hook in self], self.recorded()
        names = mine if replaces else [*known, *(name for name in mine if name not in known)]
        if names != known:
            self._registry.record(_RECORDED, names)
        self._is_recorded = True

    def check(self) -> None:
        """Raise NotRegistered if this process lacks a recorded hook: it would create tenants without its effect."""
        if self._is_checked:
            return
        lacking = [name for name in self.recorded() if name not in self]
        if lacking:
            msg = f"New tenants need the hook {lacking[0]!r}, which is not registered in this process."
            remedy = "Pass the code: --app module:tenants. If the hook was removed permanently: tenancy init"
            raise NotRegistered(msg, remedy=remedy)
        self._is_checked = True

    def runs(self, tenants: Iterable[Tenant]) -> Sequence[HookRun]:
        """Return what is recorded of the hooks of some tenants."""
        return list(self._runs.of(tenant.id for tenant in tenants).values())

    def apply_to(self, tenant: Tenant) -> bool:
        """Return whether there are hooks for a new tenant. An adopted one has its data already."""
        return bool(len(self)) and not tenant.adopted

    def run(self, tenant: Tenant) -> None:
        """Run the hooks of a tenant in provisioning that have no marker yet, whose tables exist.

        Return without running any if it has left that status meanwhile. Raises HookFailed, and TenantNotReady when
        another process still runs them.
        """
        lease = ProcessLease(self._registry, f"hooks {tenant.id}", _LEASE)
        if not self._take(lease, tenant):
            return
        try:
            with lease.kept():
                done = self._runs.of([tenant.id])
                for hook in self:
                    found = done.get((tenant.id, hook.name))
                    if found is None or found.finished_at is None:
                        self._run_one(hook, tenant)
        finally:
            with suppress(TenancyError, PersistenceError):  # it expires
                lease.release()

    def _take(self, lease: ProcessLease, tenant: Tenant) -> bool:
        """Return whether the lease was taken; False when the tenant no longer needs it."""
        deadline = time.monotonic() + _WAIT
        while True:
            is_taken = lease.acquire()
            now = self._registry.get(tenant.id)
            if now is None or now.status is not TenantStatus.PROVISIONING:
                if is_taken:
                    lease.release()
                return False
            if is_taken:
                return True
            if time.monotonic() > deadline:
                msg = f"Tenant {tenant.slug!r} is being created: another process runs its hooks."
                raise TenantNotReady(msg, remedy="Retry, or see: tenancy doctor", tenant=tenant.slug)
            pause(_POLL)

    def _run_one(self, hook: Callback[Hook], tenant: Tenant) -> None:
        self._runs.start(tenant.id, hook.name)
        try:
            with self._scope(tenant.id):
                hook.call(replace(tenant, tenancy=self.host))
        except (Exception, SystemExit) as error:
            with suppress(TenancyError, PersistenceError):  # the error itself says more
                self._runs.fail(tenant.id, hook.name, error)
            msg = f"Hook {hook.name!r} of tenant {tenant.slug!r} failed ({describe(error).removeprefix('builtins.')})."
            remedy = "Fix the cause, then run: tenancy doctor --repair"
            raise HookFailed(msg, remedy=remedy, tenant=tenant.slug) from error
        self._runs.finish(tenant.id, hook.name)

    @contextmanager
    def _scope(self, tenant_id: UUID) -> Iterator[None]:
        host: Any = self.host
        with context.creating(tenant_id), context.scope(host, tenant_id):
            yield
