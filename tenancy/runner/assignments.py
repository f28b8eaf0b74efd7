"""Assignments: the tenants whose leases this process holds, and the progress of each of their followers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tenancy.following.pipes import Pipe, Pipes
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.model.weights import DEFAULT_WEIGHT, weight_of
from tenancy.runner.lags import Lag

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.naming import TableName
    from tenancy.model.placement import Placement
    from tenancy.runner.ready_queue import Key

__all__ = ["Assignment", "Assignments", "PendingGap"]

_WINDOW: Final = 10.0


class PendingGap:
    """A gap between a leader's id sequence and what its follower has found: uncommitted or rolled-back events.

    ``last`` is the sequence value. ``mark`` is a transaction that started after that value was read. The gap is final
    once every earlier transaction has ended: what a read does not find then will never appear.
    """

    __slots__ = ("is_final", "last", "mark")

    def __init__(self, last: int) -> None:
        self.last = last
        self.mark: int | None = None
        self.is_final = False


class Assignment:
    """Progress of one tenant's follower behind one leader.

    One worker at a time writes to it, and so does the coordinator thread.
    """

    __slots__ = (
        "_counted",
        "_since",
        "events",
        "is_comparison_due",
        "lacks_tables",
        "lag",
        "pending_gap",
        "pipe",
        "position",
        "processed",
        "recorded",
        "settled_up_to",
        "tenant",
        "tracking",
        "used_up_at",
    )

    def __init__(
        self, tenant: Tenant, pipe: Pipe, events: TableName, tracking: TableName | None, *, lacks_tables: bool
    ) -> None:
        self.tenant = tenant
        self.lacks_tables = lacks_tables
        """Whether the follower's tables are still to be created. It is enqueued again when they are recorded."""
        self.pipe = pipe
        self.events = events
        self.tracking = tracking
        self.position: int | None = None
        """Everything up to this id was read. None means: read the recorded position first."""
        self.recorded = 0
        """The last position known to be recorded. A recorded position behind it was set back by an operator."""
        self.is_comparison_due = False
        """Whether the next slice compares the position with the recorded one, and records it if that is behind."""
        self.settled_up_to = 0
        """Ids up to this one are either processed or will never appear, whatever the leader's sequence shows."""
        self.pending_gap: PendingGap | None = None
        self.lag = Lag()
        self.processed = 0
        self.used_up_at = 0.0
        """When it last exhausted a slice, leaving no time for the follower's other leaders."""
        self._since = time.monotonic()
        self._counted = 0

    @property
    def follower(self) -> tuple[UUID, Pipe, TableName | None]:
        """The tenant's id, the pipe, and the table of the recorded positions."""
        return self.tenant.id, self.pipe, self.tracking

    @property
    def reached(self) -> int:
        """Everything up to this id is processed, or will never appear, as far as it is known."""
        position = self.recorded if self.position is None else self.position
        return max(position, self.settled_up_to)

    @property
    def key(self) -> Key:
        """The key of its follower in the ready queue."""
        return self.tenant.id, self.pipe.follower

    def rate(self) -> float:
        """Return the number of notifications processed per second over the last seconds."""
        now = time.monotonic()
        rate = (self.processed - self._counted) / max(now - self._since, 0.001)
        if now - self._since > _WINDOW:
            self._since, self._counted = now, self.processed
        return rate


class Assignments:
    """Assignments of the active tenants in the held buckets. Safe to use from many threads."""

    def __init__(
        self, pipes: Pipes, default_schema_of: Callable[[Placement], str | None], bucket_of: Callable[[UUID], int]
    ) -> None:
        self.pipes = pipes
        self._default_schema_of = default_schema_of
        self._bucket_of = bucket_of
        # Guards the fields below, for in-memory operations only. Lookups of one entry take no lock.
        self._lock = threading.Lock()
        self._active: dict[UUID, Tenant] = {}
        self._buckets: frozenset[int] = frozenset()
        self._held: dict[UUID, Mapping[Pipe, Assignment]] = {}
        self._by_key: dict[int, tuple[Assignment, ...]] = {}
        # Those other than the default.
        self._weights: dict[UUID, float] = {}

    def holds(self, tenant_id: UUID) -> bool:
        """Return whether a tenant is assigned to this process."""
        return tenant_id in self._held

    def weight_of(self, tenant_id: UUID) -> float:
        """Return the weight of a tenant that is assigned to this process."""
        return self._weights.get(tenant_id, DEFAULT_WEIGHT)

    def get(self, tenant_id: UUID, pipe: Pipe) -> Assignment | None:
        """Return an assignment, or None when the tenant is not assigned to this process."""
        return self._held.get(tenant_id, {}).get(pipe)

    def of(self, key: Key) -> list[Assignment]:
        """Return a follower's assignments, the one that exhausted a slice least recently first."""
        assignments = self._held.get(key[0], {}).values()
        return sorted(
            (assignment for assignment in assignments if assignment.pipe.follower == key[1]),
            key=lambda assignment: assignment.used_up_at,
        )

    def behind(self, key: int) -> tuple[Assignment, ...]:
        """Return the assignments that read an events table, by the table's key in wake-ups."""
        return self._by_key.get(key, ())

    def all(self) -> list[Assignment]:
        """Return all assignments."""
        with self._lock:
            return [assignment for assignments in self._held.values() for assignment in assignments.values()]

    @property
    def tenants(self) -> Collection[UUID]:
        """Ids of the tenants assigned to this process."""
        return self._held.keys()

    def hold(self, buckets: Iterable[int]) -> tuple[list[Assignment], list[UUID]]:
        """Take the tenants in these buckets and release all others.

        Return the acquired assignments and the ids of the released tenants.
        """
        with self._lock:
            self._buckets = frozenset(buckets)
            return self._adjust(self._active.keys() | self._held.keys(), is_changed=False)

    def update(self, active: Iterable[Tenant], gone: Iterable[UUID] = ()) -> tuple[list[Assignment], list[UUID]]:
        """Apply registry changes: tenants that exist, and ids that are gone. Return the same as :meth:`hold`."""
        with self._lock:
            changed = set(gone)
            for tenant_id in changed:
                self._active.pop(tenant_id, None)
                self._weights.pop(tenant_id, None)
            for tenant in active:
                changed.add(tenant.id)
                if tenant.status is TenantStatus.ACTIVE:
                    self._active[tenant.id] = tenant
                    self._weigh(tenant)
                else:
                    self._active.pop(tenant.id, None)
                    self._weights.pop(tenant.id, None)
            return self._adjust(changed, is_changed=True)

    def _weigh(self, tenant: Tenant) -> None:
        weight = weight_of(tenant.metadata)
        if weight == DEFAULT_WEIGHT:
            self._weights.pop(tenant.id, None)
        else:
            self._weights[tenant.id] = weight

    def _adjust(self, ids: Iterable[UUID], *, is_changed: bool) -> tuple[list[Assignment], list[UUID]]:
        acquired: list[Assignment] = []
        released: list[UUID] = []
        for tenant_id in ids:
            tenant = self._active.get(tenant_id)
            is_ours = tenant is not None and self._bucket_of(tenant_id) in self._buckets
            if is_ours and tenant_id not in self._held:
                assert tenant is not None
                acquired += self._acquire(tenant)
            elif is_ours and is_changed:
                for assignment in self._held[tenant_id].values():
                    assert tenant is not None
                    assignment.tenant = tenant
                    assignment.lacks_tables = self._lacks_tables(tenant, assignment.pipe)
                    acquired.append(assignment)  # a slice may have been refused meanwhile
            elif not is_ours and tenant_id in self._held:
                for assignment in self._held.pop(tenant_id).values():
                    self._by_key.pop(assignment.events.key, None)
                released.append(tenant_id)
        return acquired, released

    def _acquire(self, tenant: Tenant) -> Iterable[Assignment]:
        placement = tenant.placement
        default = self._default_schema_of(placement)
        assignments = {}
        for pipe in self.pipes.all:
            events = self.pipes.events_table(pipe, placement, default)
            tracking = self.pipes.tracking_table(pipe, placement, default)
            lacks_tables = self._lacks_tables(tenant, pipe)
            assignment = assignments[pipe] = Assignment(tenant, pipe, events, tracking, lacks_tables=lacks_tables)
            self._by_key[events.key] = (*self._by_key.get(events.key, ()), assignment)
        self._held[tenant.id] = assignments
        return assignments.values()

    def _lacks_tables(self, tenant: Tenant, pipe: Pipe) -> bool:
        return bool(self.pipes.lacking(pipe, tenant.versions))
