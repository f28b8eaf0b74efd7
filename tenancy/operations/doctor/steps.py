"""Find interrupted steps of tenants, and complete them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from tenancy.errors import TenantNotFound
from tenancy.model.tenant import TenantStatus
from tenancy.operations.doctor.finding import HALF_DONE, Finding

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["check", "check_due", "complete"]

# Creating or purging a tenant takes less. A step that takes longer counts as a failure.
_LONG: Final = timedelta(seconds=60)


def check(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    """Yield the tenants that are being created or purged, as failures if that takes too long or has failed."""
    half_done = [tenant for tenant in every if tenant.status in HALF_DONE]
    if not half_done:
        yield Finding(name="steps", level="ok", what="No interrupted steps.")
    runs = {run.tenant_id: run for run in fleet.hooks.runs(half_done) if run.finished_at is None}
    for tenant in half_done:
        is_long = datetime.now(UTC) - tenant.changed_at > _LONG
        run = runs.get(tenant.id)
        since = f"{HALF_DONE[tenant.status]} since {tenant.changed_at:%Y-%m-%d %H:%M:%S}Z"
        has_failed = run is not None and run.error is not None
        yield Finding(
            name="steps",
            level="failure" if is_long or has_failed else "warning",
            what=f"{tenant.slug!r} {since}{'' if run is None else f': {run}'}.",
            remedy="Fix the cause, then run: tenancy doctor --repair"
            if has_failed
            else "If the process that does it died: tenancy doctor --repair",
            tenant=tenant.slug,
        )


def check_due(fleet: Fleet) -> Iterator[Finding]:
    """Yield whether deleted tenants are due to be purged."""
    due = fleet.purging.due()
    if due:
        what = f"The grace period of {len(due)} deleted tenant{'s' if len(due) > 1 else ''} is over."
        yield Finding(name="due", level="warning", what=what, remedy="Purge: tenancy purge --due")
    else:
        yield Finding(name="due", level="ok", what="No deleted tenant is due to be purged.")


def complete(fleet: Fleet, tenant: Tenant, actor: str | None) -> Finding:
    """Complete the interrupted step of a tenant."""
    if tenant.status is TenantStatus.PROVISIONING:
        fleet.provisioning.complete([tenant], actor)
        done = "is ready"
    else:
        with suppress(TenantNotFound):  # another process has finished it
            list(fleet.purging.purge([tenant], actor))  # by id: its slug may belong to another tenant now
        done = "is purged"
    return Finding(name="steps", level="ok", what=f"{tenant.slug!r} {done}.")
