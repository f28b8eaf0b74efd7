"""What this process works at: the tenants whose leases it holds, and how far each of their followers is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.runner.pipes import Pipe, Pipes

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.naming import TableName
    from tenancy.runner.ready_queue import Key

__all__ = ["Assignment", "Assignments", "PendingGap"]

_WINDOW: Final = 10.0


class PendingGap:
    """A leader's counter is ahead of what a follower has found: events that have not been committed, or never will be.

    ``mark`` is a transaction that began after the counter was seen there. Once all before it have ended, a look that
    finds nothing is ``final``.
    """

    __slots__ = ("is_final", "last", "mark")

    def __init__(self, last: int) -> None:
        self.last = last
        self.mark: int | None = None
        self.is_final = False


class Assignment:
    """How far one follower of one tenant is behind one leader. Written by one worker at a time, and by the sweep."""

    __slots__ = (
        "_counted",
        "_since",
        "events",
        "is_comparison_due",
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

    def __init__(self, tenant: Tenant, pipe: Pipe, events: TableName, tracking: TableName) -> None:
        self.tenant = tenant
        self.pipe = pipe
        self.events = events
        self.tracking = tracking
        self.position: int | None = None
        """What comes after it has not been looked at; None when the recorded position must be asked for."""
        self.recorded = 0
        """The position that is known to be recorded; a recorded one behind it has been set back."""
        self.is_comparison_due = False
        """Whether the next turn compares the position with the recorded one, and records it where that is behind."""
        self.settled_up_to = 0
        """What the leader's counter may show without there being anything."""
        self.pending_gap: PendingGap | None = None
        self.processed = 0
        self.used_up_at = 0.0
        """When it last used up a turn, and so left nothing of it to the follower's other leaders."""
        self._since = time.monotonic()
        self._counted = 0

    @property
    def key(self) -> Key:
        """Who takes turns."""
        return self.tenant.id, self.pipe.follower

    def rate(self) -> float:
        """Return how many notifications were processed each second, of late."""
        now = time.monotonic()
        rate = (self.processed - self._counted) / max(now - self._since, 0.001)
        if now - self._since > _WINDOW:
            self._since, self._counted = now, self.processed
        return rate


class Assignments:
    """The courses of active tenants in the buckets that are held. Safe to use from many threads."""

    def __init__(
        self, pipes: Pipes, default_schema: Callable[[], str | None], bucket_of: Callable[[UUID], int]
    ) -> None:
        self.pipes = pipes
        self._default_schema = default_schema
        self._bucket_of = bucket_of
        # Guards what follows, for operations in memory only; readers of one entry take no lock.
        self._lock = threading.Lock()
        self._active: dict[UUID, Tenant] = {}
        self._buckets: frozenset[int] = frozenset()
        self._held: dict[UUID, Mapping[Pipe, Assignment]] = {}
        self._by_key: dict[int, tuple[Assignment, ...]] = {}

    def holds(self, tenant_id: UUID) -> bool:
        """Return whether this process works for a tenant."""
        return tenant_id in self._held

    def get(self, tenant_id: UUID, pipe: Pipe) -> Assignment | None:
        """Return a course, or None when this process does not work for the tenant."""
        return self._held.get(tenant_id, {}).get(pipe)

    def of(self, key: Key) -> list[Assignment]:
        """Return the courses of a follower, first those that have not used up a turn for the longest time."""
        assignments = self._held.get(key[0], {}).values()
        return sorted(
            (assignment for assignment in assignments if assignment.pipe.follower == key[1]),
            key=lambda assignment: assignment.used_up_at,
        )

    def behind(self, key: int) -> tuple[Assignment, ...]:
        """Return the courses that read a table of events, by the key that stands for it in wake-ups."""
        return self._by_key.get(key, ())

    def all(self) -> list[Assignment]:
        """Return all courses."""
        with self._lock:
            return [assignment for assignments in self._held.values() for assignment in assignments.values()]

    @property
    def tenants(self) -> Collection[UUID]:
        """The tenants that this process works for."""
        return self._held.keys()

    def hold(self, buckets: Iterable[int]) -> tuple[list[Assignment], list[UUID]]:
        """Work for the tenants in these buckets and for no others; return the courses to look at, and who was let
        go.
        """
        with self._lock:
            self._buckets = frozenset(buckets)
            return self._adjust(self._active.keys() | self._held.keys(), is_changed=False)

    def update(self, active: Iterable[Tenant], gone: Iterable[UUID] = ()) -> tuple[list[Assignment], list[UUID]]:
        """Know that tenants are active and others are not, any more; return as :func:`hold` does."""
        with self._lock:
            changed = set(gone)
            for tenant_id in changed:
                self._active.pop(tenant_id, None)
            for tenant in active:
                changed.add(tenant.id)
                if tenant.status is TenantStatus.ACTIVE:
                    self._active[tenant.id] = tenant
                else:
                    self._active.pop(tenant.id, None)
            return self._adjust(changed, is_changed=True)

    def _adjust(self, ids: Iterable[UUID], *, is_changed: bool) -> tuple[list[Assignment], list[UUID]]:
        begun: list[Assignment] = []
        ended: list[UUID] = []
        for tenant_id in ids:
            tenant = self._active.get(tenant_id)
            is_ours = tenant is not None and self._bucket_of(tenant_id) in self._buckets
            if is_ours and tenant_id not in self._held:
                assert tenant is not None
                begun += self._begin(tenant)
            elif is_ours and is_changed:
                for assignment in self._held[tenant_id].values():
                    assert tenant is not None
                    assignment.tenant = tenant
                    begun.append(assignment)  # it may have been refused a turn meanwhile
            elif not is_ours and tenant_id in self._held:
                for assignment in self._held.pop(tenant_id).values():
                    self._by_key.pop(assignment.events.key, None)
                ended.append(tenant_id)
        return begun, ended

    def _begin(self, tenant: Tenant) -> Iterable[Assignment]:
        placement = tenant.placement
        default = None if placement.schema else self._default_schema()
        assignments = {}
        for pipe in self.pipes.all:
            events = self.pipes.events_table(pipe, placement, default)
            tracking = self.pipes.tracking_table(pipe, placement, default)
            assignment = assignments[pipe] = Assignment(tenant, pipe, events, tracking)
            self._by_key[events.key] = (*self._by_key.get(events.key, ()), assignment)
        self._held[tenant.id] = assignments
        return assignments.values()
