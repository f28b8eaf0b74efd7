"""What can be asked of followers, and told to them, wherever they run; it needs no code of the applications."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from eventsourcing.persistence import IntegrityError, Tracking

from eventsourcing_sqlalchemy.positions import LastIDs, read_last_ids, read_positions
from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy.arguments import check_type
from tenancy.errors import TenancyError
from tenancy.lifecycle import known_slug, not_found, one_tenant
from tenancy.runner.failures import Failure, FailureBook
from tenancy.runner.leases import bucket_of, owners
from tenancy.runner.pipes import Pipe, Pipes
from tenancy.tenant import Tenant, TenantStatus, Verb, check_actor

if TYPE_CHECKING:
    from tenancy.blueprints import Blueprint
    from tenancy.places import Places
    from tenancy.registry import Registry
    from tenancy.runner.courses import Course

__all__ = ["FollowerState", "FollowerStatus", "Followers"]

FollowerState = Literal["current", "behind", "retrying", "quarantined"]


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
    failure: Failure | None


class Followers:
    """The followers of all active tenants. Safe to use from many threads."""

    def __init__(self, registry: Registry, places: Places, blueprints: Sequence[Blueprint]) -> None:
        self._registry = registry
        self._places = places
        self._pipes = Pipes(blueprints)
        self._book = FailureBook(registry)

    def __repr__(self) -> str:
        pipes = ", ".join(f"{pipe.follower} of {pipe.leader}" for pipe in self._pipes.all)
        return f"Followers({pipes or 'none'}; {self._registry})"

    def status(
        self, interval: float = 0.0, course_of: Callable[[UUID, Pipe], Course | None] | None = None
    ) -> Sequence[FollowerStatus]:
        """Return how the followers are, in the order of the tenants' slugs.

        With an ``interval``, the rates of that many seconds are measured. ``course_of`` knows more of those that this
        process works for.
        """
        check_type("The interval", interval, (int, float), "a number of seconds")
        before = self._read(course_of)
        if not interval:
            return before
        began = time.monotonic()
        time.sleep(interval)
        after = self._read(course_of)
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

    def _read(self, course_of: Callable[[UUID, Pipe], Course | None] | None) -> list[FollowerStatus]:
        tenants = self._registry.list(TenantStatus.ACTIVE)
        owned, failures, pipes = owners(self._registry), self._book.all(), self._pipes
        default = self._places.datastore.default_schema()
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
        last_ids = LastIDs(self._places.datastore).read(list({events for _, _, events, _ in rows}))
        positions = read_positions(self._places.datastore, list({tracking for *_, tracking in rows}))
        # After a rollback, or a crash of the server, the quick answer is ahead of what there is.
        seemingly_behind = {
            events
            for _, pipe, events, tracking in rows
            if last_ids.get(events, 0) > positions.get(tracking, {}).get(pipe.leader, 0)
        }
        last_ids |= read_last_ids(self._places.datastore, list(seemingly_behind))
        return [
            _status(
                tenant,
                pipe,
                last=last_ids.get(events, 0),
                position=positions.get(tracking, {}).get(pipe.leader, 0),
                owner=owned.get(bucket_of(tenant.id)),
                failure=failures.get((tenant.id, pipe.follower)),
                course=None if course_of is None else course_of(tenant.id, pipe),
            )
            for tenant, pipe, events, tracking in rows
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
            for failure in self._book.all().values()
            if tenant_id in (None, failure.tenant_id) and follower in (None, failure.follower)
        ]
        return [failure for failure in stopped if self._book.clear(failure.key)]

    def skip(self, tenant: str | Tenant, follower: str, notification_id: int, *, actor: str | None = None) -> Failure:
        """Let a follower that has stopped leave out the one notification that it has stopped at, for ever.

        That goes into the tenant's history. Returns why it had stopped; raises TenancyError when it has not, or at
        another notification.
        """
        check_actor(actor)
        check_type("The notification id", notification_id, int, "a number")
        self._check(follower)
        found = self._find(tenant)
        failure = self._book.get((found.id, follower))
        if failure is None or failure.notification_id != notification_id:
            at = "does not fail" if failure is None else f"fails {failure.where}"
            msg = f"Follower {follower!r} of tenant {found.slug!r} {at}: {notification_id} is not what stops it."
            raise TenancyError(msg, remedy="See: tenancy runner status", tenant=found.slug)
        # The position first: when this process dies between the two, doing it again records it.
        self._move(found, Pipe(failure.leader, follower), notification_id)
        with one_tenant(self._registry, found) as (session, current):
            remark = f"{follower}: notification {notification_id} of {failure.leader}"
            self._registry.change(session, [current], Verb.SKIP, actor, remark=remark)
            self._book.clear_in(session, failure.key)
        return failure

    def _move(self, tenant: Tenant, pipe: Pipe, notification_id: int) -> None:
        datastore = self._places.datastore
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
        if isinstance(wanted, Tenant):
            return wanted
        tenant = self._registry.find(known_slug(wanted))
        if tenant is None:
            raise not_found(wanted)
        return tenant


def _status(
    tenant: Tenant,
    pipe: Pipe,
    *,
    last: int,
    position: int,
    owner: str | None,
    failure: Failure | None,
    course: Course | None,
) -> FollowerStatus:
    rate = None
    reached = position
    if course is not None:
        rate = course.rate()
        reached = max(position, course.position or 0, min(course.settled, last))
    lag = max(0, last - reached)
    failure = failure if failure is not None and failure.leader == pipe.leader else None
    state: FollowerState = "behind" if lag else "current"
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
        rate=rate,
        owner=owner,
        failure=failure,
    )
