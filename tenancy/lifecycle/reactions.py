"""Reactions: the user's functions that get lifecycle events after the fact, from the registry's own log.

Each reaction has a position in the log. It gets the events of one tenant in order, each at least once. When it fails
for a tenant, this tenant's events wait behind the failure, and the reaction goes on with those of others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from eventsourcing_sqlalchemy.errors import describe
from tenancy import context
from tenancy.arguments import check_type
from tenancy.errors import InvalidArgument
from tenancy.lifecycle.callbacks import Callback, Callbacks
from tenancy.model.lifecycle_events import EVENTS, LifecycleEvent
from tenancy.registry.process_leases import ProcessLease, owner_of
from tenancy.registry.reaction_store import ReactionFailure, ReactionStore

if TYPE_CHECKING:
    from tenancy.registry import Registry
    from tenancy.registry.registry import Change

__all__ = ["LEASE_NAME", "Reaction", "ReactionReport", "Reactions", "Reactor"]

logger: Final = logging.getLogger(__name__)

Reaction = Callable[[LifecycleEvent], object]
"""A user's function that gets a lifecycle event."""

LEASE_NAME: Final = "reactions"
_LEASE: Final = 10.0
_NAMES: Final = sorted(set(EVENTS.values()))


class Reactions(Callbacks[Reaction]):
    """The reactions of a fleet, in the order of their registration. Safe to use from many threads."""

    def __init__(self, registry: Registry) -> None:
        super().__init__("Reaction")
        self._registry = registry
        self.store = ReactionStore(registry)
        """The positions and failures."""
        self._is_recorded = False

    def register(self, function: Reaction, name: str | None, events: Iterable[str] = ()) -> None:
        super().register(function, name, events)
        self._is_recorded = False

    @staticmethod
    def check_events(events: Iterable[str]) -> None:
        """Raise InvalidArgument for what is not the name of an event."""
        for each in events:
            check_type("An event", each, str, 'its name: @tenants.after("suspended")')
            if each not in _NAMES:
                msg = f"There is no lifecycle event {each!r}."
                raise InvalidArgument(msg, remedy=f"Pass some of: {', '.join(_NAMES)}.")

    def record(self) -> None:
        """Record this process's reactions, once. A new one gets the changes that follow."""
        if self._is_recorded or not len(self):
            return
        known = self.store.positions()
        for reaction in self:
            if reaction.name not in known:
                self.store.add(reaction.name, self._registry.position())
        self._is_recorded = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactionReport:
    """What one call of ``react()`` has done."""

    processed: int
    """The number of successful calls of reactions."""
    failures: Sequence[ReactionFailure]
    """All current failures, also those that are not due to be retried yet."""
    owner: str | None = None
    """The process that reacts instead, so that this one has done nothing; None if this one has reacted."""


class Reactor:
    """Calls the reactions of this process. Used by one thread at a time.

    With ``raises``, for tests, the error of a reaction is raised, and not recorded.
    """

    def __init__(self, registry: Registry, reactions: Reactions, *, raises: bool = False) -> None:
        self._registry = registry
        self._raises = raises
        self._reactions = reactions
        self._store = reactions.store
        # The end of the log when all reactions had reached it without a failure.
        self._idle_at: int | None = None

    def react(self) -> ReactionReport:
        """Call the reactions for all events that wait, and retry the failures that are due."""
        self._reactions.record()
        lease = ProcessLease(self._registry, LEASE_NAME, _LEASE)
        while not lease.acquire():
            owner = owner_of(self._registry, LEASE_NAME)
            if owner is not None:  # otherwise it has just expired
                return ReactionReport(processed=0, failures=self._store.failures(), owner=owner)
        try:
            with lease.kept():
                processed = self.run(lambda: lease.is_valid)
        finally:
            lease.release()
        return ReactionReport(processed=processed, failures=self._store.failures())

    def has_work(self) -> bool:
        """Return whether a call of :meth:`run` may find something to do, mostly with one query."""
        return self._idle_at is None or self._registry.position() != self._idle_at or bool(self._store.due())

    def run(self, may_go_on: Callable[[], bool]) -> int:
        """React until nothing waits or ``may_go_on`` returns False; return the number of successful calls."""
        total = 0
        self._idle_at = None
        while True:
            end = self._registry.position()
            processed = self._run_once(may_go_on)
            total += processed
            if not (processed and may_go_on()):  # reactions may cause events
                break
        if may_go_on():
            self._idle_at = end
        return total

    def _run_once(self, may_go_on: Callable[[], bool]) -> int:
        positions = self._store.positions()
        processed = 0
        for reaction in self._reactions:
            if reaction.name in positions:
                processed += self._follow(reaction, positions[reaction.name], may_go_on)
        by_name = {reaction.name: reaction for reaction in self._reactions}
        for failure in self._store.due():
            if failure.reaction in by_name and may_go_on():
                processed += self._retry(by_name[failure.reaction], failure, may_go_on)
        return processed

    def _follow(self, reaction: Callback[Reaction], position: int, may_go_on: Callable[[], bool]) -> int:
        """Let a reaction go on to the end of the log; return the number of successful calls."""
        failing = {each.tenant_id for each in self._store.failures() if each.reaction == reaction.name}
        name, processed, recorded = reaction.name, 0, position
        while page := self._registry.changes_after(position):
            for each in page:
                change = each.change
                if change is not None and _is_wanted(reaction, change):
                    if not may_go_on():
                        return processed
                    recorded = each.position
                    if each.tenant_id in failing and self._store.wait_behind(
                        name, each.tenant_id, change.version, recorded
                    ):
                        continue
                    remark = self._registry.remark(each.tenant_id, change.version)
                    error = self._call(reaction, each.tenant_id, change._replace(remark=remark))
                    if error is None:
                        self._store.advance(name, recorded)
                        processed += 1
                    else:
                        self._store.fail(name, each.tenant_id, change.version, recorded, error)
                        failing.add(each.tenant_id)
            position = page[-1].position
            if position > recorded:
                self._store.advance(name, position)
        return processed

    def _retry(self, reaction: Callback[Reaction], failure: ReactionFailure, may_go_on: Callable[[], bool]) -> int:
        """Call a reaction for the changes of a tenant that wait; return the number of successful calls."""
        processed = 0
        for change in self._registry.history(failure.tenant_id):
            if not failure.number <= change.version <= failure.last_number or not _is_wanted(reaction, change):
                continue
            if not may_go_on():
                return processed
            error = self._call(reaction, failure.tenant_id, change)
            if error is not None:
                self._store.fail_again(failure, change.version, error)
                return processed
            processed += 1
            if not self._store.pass_over(failure, change.version):
                return processed  # an operator was faster
            failure = replace(failure, number=change.version + 1)
        self._store.pass_over(failure, failure.last_number)  # also when the reaction is no longer for these events
        return processed

    def _call(self, reaction: Callback[Reaction], tenant_id: UUID, change: Change) -> BaseException | None:
        """Call a reaction for a change; return its error, or None."""
        tenant = self._registry.get(tenant_id)
        host: Any = self._reactions.host
        event = LifecycleEvent(
            name=_name_of(change) or change.action,
            tenant_id=tenant_id,
            number=change.version,
            status=change.status,
            actor=change.actor,
            at=change.at,
            remark=change.remark,
            tenant=None if tenant is None else replace(tenant, tenancy=host),
        )
        try:
            with context.scope(host, None):
                reaction.call(event)
        except (Exception, SystemExit) as error:
            if self._raises:
                raise
            extra = {
                "event": "reaction.failed",
                "tenant_id": str(tenant_id),
                "reaction": reaction.name,
                "number": change.version,
                "cause": error,
            }
            logger.warning("Reaction %s to %s failed: %s", reaction.name, event.name, describe(error), extra=extra)
            return error
        return None


def _name_of(change: Change) -> str | None:
    return EVENTS.get((change.action, change.status)) or EVENTS.get((change.action, ""))


def _is_wanted(reaction: Callback[Reaction], change: Change) -> bool:
    name = _name_of(change)
    return name is not None and (not reaction.events or name in reaction.events)
