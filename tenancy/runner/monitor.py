"""What can be asked of followers, and told to them, wherever they run; it needs no code of the applications."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple
from uuid import UUID

from eventsourcing.persistence import IntegrityError, Tracking

from eventsourcing_sqlalchemy.high_water import HighWaterMarks, read_last_ids, read_positions
from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy.arguments import check_type
from tenancy.errors import TenancyError
from tenancy.model.tenant import Tenant, TenantStatus, Verb, check_actor
from tenancy.registry.lookup import find_tenant, one_tenant
from tenancy.runner.failures import Failure, FailureStore
from tenancy.runner.leases import bucket_of, failing, owners
from tenancy.runner.pipes import Pipe, Pipes

if TYPE_CHECKING:
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.registry import Registry
    from tenancy.runner.assignments import Assignment
    from tenancy.storage.shard import Shard

__all__ = ["FollowerMonitor", "FollowerState", "FollowerStatus"]

FollowerState = Literal["current", "behind", "ahead", "retrying", "quarantined"]
"""Ahead is a recorded position beyond the leader's last id: what gets an id up to it will not be processed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerStatus:
    """How one follower of one tenant is behind one leader."""

    tenant: str
    """The tenant's slug."""
    tenant_id: UUID
    leader: str
    follower: str
    state: FollowerState
    position: int
    last: int
    """The last id that the leader has given out."""
    lag: int
    """How many ids it is behind: no more notifications than that."""
    rate: float | None
    """Notifications each second; None when nobody knows here."""
    owner: str | None
    """The process that works for the tenant."""
    owner_failing: str | None
    """What fails in that process, beside followers: see :meth:`Runner.health`."""
    failure: Failure | None


class FollowerMonitor:
    """The followers of all active tenants. Safe to use from many threads."""

    def __init__(self, registry: Registry, shard: Shard, application_specs: Sequence[ApplicationSpec]) -> None:
        self._registry = registry
        self._shard = shard
        self._pipes = Pipes(application_specs)
        self._failure_store = FailureStore(registry)

    def __repr__(self) -> str:
        pipes = ", ".join(f"{pipe.follower} of {pipe.leader}" for pipe in self._pipes.all)
        return f"Followers({pipes or 'none'}; {self._registry})"

    def status(
        self, interval: float = 0.0, assignment_of: Callable[[UUID, Pipe], Assignment | None] | None = None
    ) -> Sequence[FollowerStatus]:
        """Return how the followers are, in the order of the tenants' slugs.

        With an ``interval``, the rates of that many seconds are measured. ``course_of`` knows more of those that this
        process works for.
        """
        check_type("The interval", interval, (int, float), "a number of seconds")
        before = self._read(assignment_of)
        if not interval:
            return before
        began = time.monotonic()
        time.sleep(interval)
        after = self._read(assignment_of)
        elapsed = time.monotonic() - began
        positions = {(each.tenant_id, each.leader, each.follower): each.position for each in before}
        return [
            replace(
                each,
                rate=(each.position - positions.get((each.tenant_id, each.leader, each.follower), each.position))
                / elapsed,
            )
            for each in after
        ]

    def _read(self, assignment_of: Callable[[UUID, Pipe], Assignment | None] | None) -> list[FollowerStatus]:
        tenants = self._registry.list(TenantStatus.ACTIVE)
        owned, fails, failures, pipes = (
            owners(self._registry),
            failing(self._registry),
            self._failure_store.all(),
            self._pipes,
        )
        default = self._shard.datastore.default_schema()
        rows = [
            (
                tenant,
                pipe,
                pipes.events_table(pipe, tenant.placement, default),
                pipes.tracking_table(pipe, tenant.placement, default),
            )
            for tenant in tenants
            for pipe in pipes.all
        ]
        # Before the positions are read: what is known to be recorded is found there, unless it was set back.
        known = [None if assignment_of is None else _known(assignment_of(tenant.id, pipe)) for tenant, pipe, *_ in rows]
        last_ids = HighWaterMarks(self._shard.datastore).read(list({events for _, _, events, _ in rows}))
        positions = read_positions(self._shard.datastore, list({tracking for *_, tracking in rows}))
        # After a rollback, or a crash of the server, the quick answer is ahead of what there is. And it was read before
        # the positions.
        differing = {
            events
            for _, pipe, events, tracking in rows
            if last_ids.get(events, 0) != positions.get(tracking, {}).get(pipe.leader, 0)
        }
        last_ids |= read_last_ids(self._shard.datastore, list(differing))
        return [
            _status(
                tenant,
                pipe,
                last=last_ids.get(events, 0),
                position=positions.get(tracking, {}).get(pipe.leader, 0),
                owner=(owner := owned.get(bucket_of(tenant.id))),
                owner_failing=None if owner is None else fails.get(owner),
                failure=failures.get((tenant.id, pipe.follower)),
                known=here,
            )
            for (tenant, pipe, events, tracking), here in zip(rows, known, strict=True)
        ]

    def retry(self, tenant: str | Tenant | None, follower: str | None = None) -> Sequence[Failure]:
        """Let the followers of a tenant that have stopped, or one of them, try again at once; return why they had.

        With None for the tenant, those of all tenants. Raises TenancyError for a follower that does not exist.
        """
        if follower is not None:
            self._check(follower)
        tenant_id = None if tenant is None else self._find(tenant).id
        stopped = [
            failure
            for failure in self._failure_store.all().values()
            if tenant_id in (None, failure.tenant_id) and follower in (None, failure.follower)
        ]
        return [failure for failure in stopped if self._failure_store.clear(failure.key)]

    def skip(self, tenant: str | Tenant, follower: str, notification_id: int, *, actor: str | None = None) -> Failure:
        """Let a follower that has stopped leave out the one notification that it has stopped at, for ever.

        That goes into the tenant's history. Returns why it had stopped; raises TenancyError when it has not, or at
        another notification.
        """
        check_actor(actor)
        check_type("The notification id", notification_id, int, "a number")
        self._check(follower)
        found = self._find(tenant)
        failure = self._failure_store.get((found.id, follower))
        if failure is None or failure.notification_id != notification_id:
            at = "does not fail" if failure is None else f"fails {failure.where}"
            msg = f"Follower {follower!r} of tenant {found.slug!r} {at}: {notification_id} is not what stops it."
            raise TenancyError(msg, remedy="See: tenancy runner status", tenant=found.slug)
        # The position first: when this process dies between the two, doing it again records it.
        self._move(found, Pipe(failure.leader, follower), notification_id)
        with one_tenant(self._registry, found) as (session, current):
            remark = f"{follower}: notification {notification_id} of {failure.leader}"
            self._registry.change(session, [current], Verb.SKIP, actor, remark=remark)
            self._failure_store.clear_in(session, failure.key)
        return failure

    def _move(self, tenant: Tenant, pipe: Pipe, notification_id: int) -> None:
        datastore = self._shard.datastore
        default = None if tenant.placement.schema else datastore.default_schema()
        table = self._pipes.tracking_table(pipe, tenant.placement, default)
        recorder = SQLAlchemyTrackingRecorder(datastore, tracking_table_name=table.name, schema_name=table.schema)
        try:
            recorder.insert_tracking(Tracking(pipe.leader, notification_id))
        except IntegrityError:
            return  # it is there, or further: somebody has been before

    def _check(self, follower: str) -> None:
        known = sorted({pipe.follower for pipe in self._pipes.all})
        if follower not in known:
            msg = f"There is no follower {follower!r}."
            raise TenancyError(msg, remedy=f"There are: {', '.join(known) or 'none'}.")

    def _find(self, wanted: str | Tenant) -> Tenant:
        return wanted if isinstance(wanted, Tenant) else find_tenant(self._registry, wanted)


class _Known(NamedTuple):
    """How far a follower is, as the process knows that works for it."""

    recorded: int
    position: int
    settled_up_to: int
    rate: float


def _known(assignment: Assignment | None) -> _Known | None:
    if assignment is None:
        return None
    return _Known(assignment.recorded, assignment.position or 0, assignment.settled_up_to, assignment.rate())


def _status(
    tenant: Tenant,
    pipe: Pipe,
    *,
    last: int,
    position: int,
    owner: str | None,
    owner_failing: str | None,
    failure: Failure | None,
    known: _Known | None,
) -> FollowerStatus:
    reached = position
    # A position that was set back is where the follower is, whatever was remembered.
    if known is not None and known.recorded <= position:
        reached = max(position, known.position, min(known.settled_up_to, last))
    lag = max(0, last - reached)
    failure = failure if failure is not None and failure.leader == pipe.leader else None
    state: FollowerState = "behind" if lag else "ahead" if position > last else "current"
    if failure is not None:
        state = "quarantined" if failure.is_quarantined else "retrying"
    return FollowerStatus(
        tenant=tenant.slug,
        tenant_id=tenant.id,
        leader=pipe.leader,
        follower=pipe.follower,
        state=state,
        position=position,
        last=last,
        lag=lag,
        rate=None if known is None else known.rate,
        owner=owner,
        owner_failing=owner_failing,
        failure=failure,
    )
