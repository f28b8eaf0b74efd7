"""Inspect and control reactions, whichever process calls them. The application code is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from tenancy.arguments import check_type
from tenancy.errors import TenancyError
from tenancy.lifecycle.reactions import LEASE_NAME, Reactions
from tenancy.model.tenant import Action, Tenant, check_actor
from tenancy.registry.lookup import find_tenant
from tenancy.registry.process_leases import owner_of
from tenancy.registry.reaction_store import ReactionFailure

if TYPE_CHECKING:
    from tenancy.registry import Registry

__all__ = ["ReactionMonitor", "ReactionState", "ReactionStatus"]

ReactionState = Literal["current", "behind", "retrying"]
"""Retrying means that it fails for some tenants; it may have processed the events of all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactionStatus:
    """Progress of one reaction."""

    reaction: str
    events: Sequence[str]
    """The events that it is for; empty for all, or if this process has not registered it."""
    is_registered: bool
    """Whether this process has registered it. False without the application code."""
    state: ReactionState
    position: int
    last: int
    """The position of the registry's last change."""
    lag: int
    """Number of changes behind: an upper limit for the events left."""
    owner: str | None
    """The process that reacts."""
    failures: Sequence[ReactionFailure]
    """One for each tenant for which it fails."""


class ReactionMonitor:
    """Inspect and control the reactions of a fleet. Safe to use from many threads."""

    def __init__(self, registry: Registry, reactions: Reactions) -> None:
        self._registry = registry
        self._reactions = reactions
        self._store = reactions.store

    def __contains__(self, name: object) -> bool:
        return name in self._reactions or name in self._store.positions()

    def status(self) -> Sequence[ReactionStatus]:
        """Return the status of all reactions that are recorded or registered in this process, by name."""
        positions, failures = self._store.positions(), self._store.failures()
        last, owner = self._registry.position(), owner_of(self._registry, LEASE_NAME)
        events = {reaction.name: sorted(reaction.events) for reaction in self._reactions}
        found = []
        for name in sorted({*positions, *events}):
            position = positions.get(name, last)  # a new one begins at the end
            mine = [failure for failure in failures if failure.reaction == name]
            found.append(
                ReactionStatus(
                    reaction=name,
                    events=events.get(name, ()),
                    is_registered=name in events,
                    state="retrying" if mine else "behind" if position < last else "current",
                    position=position,
                    last=last,
                    lag=max(0, last - position),
                    owner=owner,
                    failures=mine,
                )
            )
        return found

    def retry(self, tenant: str | Tenant | UUID | None, reaction: str | None = None) -> Sequence[ReactionFailure]:
        """Retry the reactions that fail for a tenant, or one of them, at once; return their failures.

        None for the tenant means all tenants, and an id also finds a purged one. Raises TenancyError for an unknown
        reaction.
        """
        if reaction is not None:
            self._check(reaction)
        tenant_id = None if tenant is None else self._id_of(tenant)
        failures = [
            failure
            for failure in self._store.failures()
            if tenant_id in (None, failure.tenant_id) and reaction in (None, failure.reaction)
        ]
        for failure in failures:
            self._store.retry(failure)
        return failures

    def skip(
        self, tenant: str | Tenant | UUID, reaction: str, number: int, *, actor: str | None = None
    ) -> ReactionFailure:
        """Skip the one change for which a reaction fails, permanently; return the failure.

        The tenant's history records it, unless the tenant is purged. Raises TenancyError when the reaction does not
        fail for the tenant, or fails at another change.
        """
        check_actor(actor)
        check_type("The number", number, int, "the number of a change")
        self._check(reaction)
        tenant_id = self._id_of(tenant)
        failing = [each for each in self._store.failures() if (each.tenant_id, each.reaction) == (tenant_id, reaction)]
        if not failing or failing[0].number != number or not self._store.pass_over(failing[0], number):
            state = f"fails at change {failing[0].number}" if failing else "is not failing for it"
            msg = f"Reaction {reaction!r} {state}: change {number} of tenant {tenant_id} cannot be skipped."
            raise TenancyError(msg, remedy="Find the failing change: tenancy runner reactions", tenant=str(tenant_id))
        with self._registry.locked(tenant_id) as (session, tenants):
            if tenants:
                remark = f"{reaction}: change {number}"
                self._registry.change(session, tenants, Action.SKIP, actor, remark=remark)
        return failing[0]

    def _check(self, reaction: str) -> None:
        if reaction not in self:
            known = sorted({*self._store.positions(), *(each.name for each in self._reactions)})
            msg = f"Reaction {reaction!r} is not part of this fleet."
            raise TenancyError(msg, remedy=f"Pass one of: {', '.join(known) or 'none'}.")

    def _id_of(self, wanted: str | Tenant | UUID) -> UUID:
        if isinstance(wanted, UUID):
            return wanted
        return wanted.id if isinstance(wanted, Tenant) else find_tenant(self._registry, wanted).id
