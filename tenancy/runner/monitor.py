"""Inspect and control followers, whichever process runs them. The application code is not needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple
from uuid import UUID

from eventsourcing.persistence import IntegrityError, Tracking

from eventsourcing_sqlalchemy.high_water import HighWaterMarks, read_last_ids
from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy.arguments import check_type
from tenancy.errors import TenancyError
from tenancy.following.pipes import Pipe, Pipes
from tenancy.model.tenant import Action, Tenant, TenantStatus, check_actor
from tenancy.registry.lookup import find_tenant, one_tenant
from tenancy.runner.failures import Failure, FailureStore
from tenancy.runner.leases import bucket_of, failing, owners
from tenancy.runner.positions import RecordedPositions
from tenancy.runner.view_reads import read_in_time

if TYPE_CHECKING:
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.registry import Registry
    from tenancy.runner.assignments import Assignment
    from tenancy.storage.cross_tenant_projections import CrossTenantProjections
    from tenancy.storage.shard import Shard

__all__ = ["FollowerMonitor", "FollowerState", "FollowerStatus"]

FollowerState = Literal["current", "behind", "ahead", "retrying", "quarantined", "waiting", "unreachable"]
"""Ahead means that the recorded position exceeds the leader's last id: new events up to it will be skipped. Waiting
means that the follower's tables are still to be created, unreachable that the database of its view does not answer, so
that the position is only what this process remembers, or 0.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerStatus:
    """Progress of one tenant's follower behind one leader."""

    tenant: str
    """The tenant's slug."""
    tenant_id: UUID
    leader: str
    follower: str
    state: FollowerState
    position: int
    last: int
    """The leader's last notification id."""
    lag: int
    """Number of ids behind the leader: an upper limit for the notifications left."""
    rate: float | None
    """Notifications per second; None when this process did not measure it."""
    owner: str | None
    """The process that holds the tenant's lease."""
    owner_failing: str | None
    """The failing background activities of that process: see :meth:`Runner.health`."""
    failure: Failure | None


class FollowerMonitor:
    """Inspect and control the followers of all active tenants. Safe to use from many threads."""

    def __init__(
        self,
        registry: Registry,
        shard: Shard,
        application_specs: Sequence[ApplicationSpec],
        cross_tenant: CrossTenantProjections,
    ) -> None:
        self._registry = registry
        self._shard = shard
        self._cross_tenant = cross_tenant
        self._pipes = Pipes(application_specs, cross_tenant)
        self._failure_store = FailureStore(registry)

    def __repr__(self) -> str:
        pipes = ", ".join(f"{pipe.follower} of {pipe.leader}" for pipe in self._pipes.all)
        return f"FollowerMonitor({pipes or 'none'}; {self._registry})"

    def status(
        self, interval: float = 0.0, assignment_of: Callable[[UUID, Pipe], Assignment | None] | None = None
    ) -> Sequence[FollowerStatus]:
        """Return the status of all followers, ordered by tenant slug.

        Creates no tables. A view over all tenants whose database does not answer in five seconds is unreachable.

        With an ``interval`` in seconds, wait that long and measure the rates. ``assignment_of`` returns this process's
        assignment for a tenant and pipe, or None; an assignment refines the position and the rate.
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
        rows = [
            (
                tenant,
                pipe,
                pipes.events_table(pipe, tenant.placement, default),
                pipes.tracking_table(pipe, tenant.placement, default),
            )
            for tenant in tenants
            for default in [self._shard.default_schema_of(tenant.placement)]
            for pipe in pipes.all
        ]
        # Read these before the recorded positions: a recorded position behind them was then set back.
        known = [None if assignment_of is None else _known(assignment_of(tenant.id, pipe)) for tenant, pipe, *_ in rows]
        last_ids = HighWaterMarks(self._shard.datastore).read(list({events for _, _, events, _ in rows}))
        recorded = RecordedPositions(self._shard.datastore, self._cross_tenant)
        positions = recorded.read(
            (tenant.id, pipe, tracking) for tenant, pipe, _, tracking in rows if tracking is not None
        )
        in_views: dict[Pipe, list[UUID]] = {}
        for tenant, pipe, _, tracking in rows:
            if tracking is None:
                in_views.setdefault(pipe, []).append(tenant.id)
        views = read_in_time(self._cross_tenant, in_views)
        positions |= {(tenant_id, pipe): each for pipe, found in views.items() for tenant_id, each in found.items()}
        # After a rollback or a server crash, a high-water mark exceeds the last id. It was also read before the
        # positions. So read the exact last id wherever the two differ.
        differing = {
            events for tenant, pipe, events, _ in rows if last_ids.get(events, 0) != positions.get((tenant.id, pipe), 0)
        }
        last_ids |= read_last_ids(self._shard.datastore, list(differing))
        return [
            _status(
                tenant,
                pipe,
                last=last_ids.get(events, 0),
                position=positions.get((tenant.id, pipe), 0),
                owner=(owner := owned.get(bucket_of(tenant.id))),
                owner_failing=None if owner is None else fails.get(owner),
                failure=failures.get((tenant.id, pipe.follower)),
                known=here,
                is_waiting=bool(pipes.lacking(pipe, tenant.versions)),
                is_unreachable=pipe in in_views and pipe not in views,
            )
            for (tenant, pipe, events, _), here in zip(rows, known, strict=True)
        ]

    def retry(self, tenant: str | Tenant | None, follower: str | None = None) -> Sequence[Failure]:
        """Retry a tenant's failing followers, or one of them, at once; return their failures.

        None for the tenant means all tenants. Raises TenancyError for an unknown follower.
        """
        if follower is not None:
            self._check(follower)
        tenant_id = None if tenant is None else self._find(tenant).id
        failures = [
            failure
            for failure in self._failure_store.all().values()
            if tenant_id in (None, failure.tenant_id) and follower in (None, failure.follower)
        ]
        return [failure for failure in failures if self._failure_store.clear(failure.key)]

    def skip(self, tenant: str | Tenant, follower: str, notification_id: int, *, actor: str | None = None) -> Failure:
        """Skip the one notification at which a follower fails, permanently; return the failure.

        The tenant's history records it. Raises TenancyError when the follower does not fail, or fails at another
        notification.
        """
        check_actor(actor)
        check_type("The notification id", notification_id, int, "a number")
        self._check(follower)
        found = self._find(tenant)
        failure = self._failure_store.get((found.id, follower))
        if failure is None or failure.notification_id != notification_id:
            state = "is not failing" if failure is None else f"failed {failure.where}"
            subject = f"Follower {follower!r} of tenant {found.slug!r}"
            msg = f"{subject} {state}: notification {notification_id} cannot be skipped."
            raise TenancyError(msg, remedy="Find the failing notification: tenancy runner status", tenant=found.slug)
        # The position first: if this process dies in between, repeating the call completes it.
        self._move(found, Pipe(failure.leader, follower), notification_id)
        with one_tenant(self._registry, found) as (session, current):
            remark = f"{follower}: notification {notification_id} of {failure.leader}"
            self._registry.change(session, [current], Action.SKIP, actor, remark=remark)
            self._failure_store.clear_in(session, failure.key)
        return failure

    def _move(self, tenant: Tenant, pipe: Pipe, notification_id: int) -> None:
        datastore, default = self._shard.datastore, self._shard.default_schema_of(tenant.placement)
        table = self._pipes.tracking_table(pipe, tenant.placement, default)
        try:
            if table is None:
                view = self._cross_tenant[pipe.follower].serving()
                view.open(tenant, pipe.leader)  # if it failed at its first event, there may be no position yet
                view.view.insert_tracking(view.tracking(tenant, pipe.leader, notification_id, 0))
                return
            recorder = SQLAlchemyTrackingRecorder(datastore, tracking_table_name=table.name, schema_name=table.schema)
            recorder.insert_tracking(Tracking(pipe.leader, notification_id))
        except IntegrityError:
            return  # the recorded position is already there, or beyond

    def _check(self, follower: str) -> None:
        known = sorted({pipe.follower for pipe in self._pipes.all})
        if follower not in known:
            msg = f"Follower {follower!r} is not part of this fleet."
            raise TenancyError(msg, remedy=f"Pass one of: {', '.join(known) or 'none'}.")

    def _find(self, wanted: str | Tenant) -> Tenant:
        return wanted if isinstance(wanted, Tenant) else find_tenant(self._registry, wanted)


class _Known(NamedTuple):
    """A follower's progress, as known to the process that runs it."""

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
    is_waiting: bool,
    is_unreachable: bool,
) -> FollowerStatus:
    if is_unreachable and known is not None:
        position = known.recorded
    reached = position
    # A position that was set back takes precedence over the remembered one.
    if known is not None and known.recorded <= position:
        reached = max(position, known.position, min(known.settled_up_to, last))
    lag = max(0, last - reached)
    failure = failure if failure is not None and failure.leader == pipe.leader else None
    state: FollowerState = "behind" if lag else "ahead" if position > last else "current"
    if is_unreachable:
        state = "unreachable"
    elif failure is not None:
        state = "quarantined" if failure.is_quarantined else "retrying"
    if is_waiting:
        state = "waiting"
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
