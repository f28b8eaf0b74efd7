"""Compare the hooks and reactions of the code with the recorded ones, and find failing reactions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tenancy.lifecycle.reaction_monitor import ReactionMonitor
from tenancy.operations.doctor.finding import Finding

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["check", "check_reactions"]


def check(fleet: Fleet) -> Iterator[Finding]:
    """Yield the hooks that prepare new tenants, and recorded ones that the code lacks."""
    recorded, registered = fleet.hooks.recorded(), [hook.name for hook in fleet.hooks]
    if registered or recorded:
        names = ", ".join({**dict.fromkeys(recorded), **dict.fromkeys(registered)})
        yield Finding(name="hooks", level="ok", what=f"New tenants are prepared by {names}.")
    lacking = [name for name in recorded if name not in registered]
    if fleet.applications and lacking:
        what = f"{', '.join(lacking)} is recorded and not in the code, so this process cannot create tenants."
        yield Finding(name="hooks", level="failure", what=what, remedy="If it was removed permanently: tenancy init")


def check_reactions(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    """Yield the reactions to changes of tenants, recorded ones that the code lacks, and failures."""
    slugs = {tenant.id: tenant.slug for tenant in every}
    for each in ReactionMonitor(fleet.registry, fleet.reactions).status():
        events = f" to {', '.join(each.events)}" if each.events else ""
        if fleet.applications and not each.is_registered:
            what = f"{each.reaction} is recorded and not in the code. {each.lag} changes wait for it."
            yield Finding(name="reactions", level="warning", what=what, remedy="Deploy its code, or ignore this.")
        elif not each.failures:
            waiting = f" {each.lag} changes wait." if each.lag else ""
            yield Finding(name="reactions", level="ok", what=f"{each.reaction} reacts{events}.{waiting}")
        for failure in each.failures:
            slug = slugs.get(failure.tenant_id)
            of = f"the purged tenant {failure.tenant_id}" if slug is None else repr(slug)
            what = (
                f"{each.reaction} fails at change {failure.number} of {of} ({failure.error}), "
                f"attempt {failure.attempts}."
            )
            remedy = (
                f"Fix the cause. To retry at once: tenancy runner retry {slug or failure.tenant_id} {each.reaction}"
            )
            yield Finding(name="reactions", level="warning", what=what, remedy=remedy, tenant=slug)
