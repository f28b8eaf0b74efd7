"""Claim items under leases, and record their ends; an executor that lost its lease can record nothing.

Leases expire by the database's clock, so executors never compare clocks. Every change of an item requires that the
executor still owns it. A transaction that needs both locks the job before the item, to avoid deadlock.

One executor works on a tenant at a time, of whichever job: the items of other jobs wait.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from tenancy.model.tenant import Tenant
from tenancy.operations.jobs.job import ItemStatus, Job, JobPhase, JobStatus
from tenancy.operations.jobs.store import MAX_ATTEMPTS, JobStore
from tenancy.registry.tables import to_tenant

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.registry import Registry

__all__ = ["Claim", "Claims", "ItemEnd", "ItemLost"]


class ItemLost(Exception):  # noqa: N818 (not an error of the item)
    """Another executor has taken over the item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An item that this executor runs."""

    tenant_id: UUID
    tenant: Tenant | None
    """None if the tenant was purged."""
    is_canary: bool
    progress: Mapping[str, Any]
    valid_until: float
    """When the lease expires unless it is renewed, by this process's monotonic clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemEnd:
    """How an item has ended."""

    status: ItemStatus
    summary: str | None = None
    error: str | None = None
    sqlstate: str | None = None
    frames: list[str] = field(default_factory=list)


class Claims:
    """One executor's claims on the items of one job. Safe to use from many threads.

    ``max_running`` is the largest number of items that jobs of this kind may run at a time, in all processes; None for
    no limit.
    """

    def __init__(self, registry: Registry, job: Job, owner: str, max_running: int | None = None) -> None:
        self._registry = registry
        self._store = JobStore(registry)
        self._jobs = registry.rows.jobs
        self._items = registry.rows.job_items
        self._tenants = registry.rows.tenants
        self._job_id = job.id
        self._topic = job.topic
        self._max_running = max_running
        self._seconds = job.lease_seconds
        self._owner = owner
        self._now: sa.ColumnElement[float] = sa.literal_column(registry.datastore.dialect.id_sequences.epoch_seconds)

    def claim(self) -> Claim | None:
        """Claim the next item; return None when no item may be claimed now."""
        began = time.monotonic()
        with self._registry.writing_rows() as session:
            jobs = self._jobs
            job = session.execute(sa.select(jobs.c.status, jobs.c.phase).where(jobs.c.id == self._job_id)).first()
            if job is None or job.status != JobStatus.RUNNING or job.phase == JobPhase.CHECK:
                return None
            if self._max_running is not None and self._running(session) >= self._max_running:
                return None
            row = self._free_item(session, in_canaries=job.phase == JobPhase.CANARIES)
            if row is None or self._is_contested(session, row.tenant_id):
                return None
            values = {
                "status": str(ItemStatus.RUNNING),
                "owner": self._owner,
                "expires": self._now + self._seconds,
                "attempts": row.attempts + 1,
                "started": self._now,
            }
            session.execute(sa.update(self._items).where(self._is(row.tenant_id)).values(values))
            found = session.execute(sa.select(self._tenants).where(self._tenants.c.id == row.tenant_id)).first()
        return Claim(
            tenant_id=row.tenant_id,
            tenant=None if found is None else to_tenant(found),
            is_canary=row.is_canary,
            progress=row.progress,
            valid_until=began + self._seconds,
        )

    def _running(self, session: Session) -> int:
        """Return how many items jobs of this kind are running; until the transaction ends, they claim no more."""
        jobs, items = self._jobs, self._items
        of_kind = jobs.c.topic == self._topic
        claiming = sa.select(jobs.c.id).where(of_kind, jobs.c.status == str(JobStatus.RUNNING))
        session.execute(claiming.order_by(jobs.c.id).with_for_update())
        query = sa.select(sa.func.count()).select_from(items).join(jobs, jobs.c.id == items.c.job_id)
        return session.scalar(query.where(of_kind, self._is_held(items))) or 0

    def _free_item(self, session: Session, *, in_canaries: bool) -> Any:
        """Lock and return an item of a dead executor, otherwise the next pending one, otherwise None.

        Tenants that another job is working on are passed over.
        """
        items, other = self._items, self._items.alias()
        expired = sa.and_(
            items.c.status == str(ItemStatus.RUNNING), items.c.expires < self._now, items.c.attempts < MAX_ATTEMPTS
        )
        pending = items.c.status == str(ItemStatus.PENDING)
        is_busy = sa.exists().where(
            other.c.tenant_id == items.c.tenant_id, other.c.job_id != items.c.job_id, self._is_held(other)
        )
        for which in (expired, pending):
            query = sa.select(items).where(items.c.job_id == self._job_id, which, ~is_busy)
            if in_canaries:
                query = query.where(items.c.is_canary)
            # Skip rows that another executor is claiming; do not wait for them.
            query = query.order_by(items.c.number).limit(1).with_for_update(skip_locked=True)
            row = session.execute(query).first()
            if row is not None:
                return row
        return None

    def _is_contested(self, session: Session, tenant_id: UUID) -> bool:
        """Return whether an executor of another job has claimed the tenant, or is about to.

        Both lock their own item first and then that of the other, without waiting. Of two that meet, at most one goes
        on, and the other one tries again later.
        """
        items = self._items
        unfinished = items.c.status.in_([str(ItemStatus.PENDING), str(ItemStatus.RUNNING)])
        others = sa.and_(items.c.tenant_id == tenant_id, items.c.job_id != self._job_id, unfinished)
        known = session.scalar(sa.select(sa.func.count()).select_from(items).where(others)) or 0
        query = sa.select(self._is_held(items)).where(others).with_for_update(skip_locked=True)
        held = list(session.scalars(query))
        return any(held) or len(held) < known

    def _is_held(self, items: sa.FromClause) -> sa.ColumnElement[bool]:
        return sa.and_(items.c.status == str(ItemStatus.RUNNING), items.c.expires >= self._now)

    def renew(self, tenant_id: UUID) -> tuple[bool, JobStatus]:
        """Renew the lease of an item; return whether this executor still owns it, and the status of the job."""
        with self._registry.writing_rows() as session:
            values = {"expires": self._now + self._seconds}
            result: Any = session.execute(sa.update(self._items).where(self._is_mine(tenant_id)).values(values))
            status = session.scalar(sa.select(self._jobs.c.status).where(self._jobs.c.id == self._job_id))
        return bool(result.rowcount), JobStatus(str(status))

    def save_progress(self, tenant_id: UUID, progress: Mapping[str, Any]) -> None:
        """Record the progress of an item; raises ItemLost."""
        with self._registry.writing_rows() as session:
            values = {"progress": dict(progress), "attempts": 1}
            result: Any = session.execute(sa.update(self._items).where(self._is_mine(tenant_id)).values(values))
            if not result.rowcount:
                raise ItemLost

    def end(self, claim: Claim, end: ItemEnd) -> None:
        """Record the end of an item, and halt the job if its failure exceeds the error budget; raises ItemLost."""
        with self._registry.writing_rows() as session:
            if end.status is ItemStatus.FAILED:
                self._store.lock(session, self._job_id)
            self._lock(session, claim.tenant_id)
            self._record(session, claim.tenant_id, end)
            if end.status is ItemStatus.FAILED:
                self._store.halt_after_failure(session, self._job_id, was_canary=claim.is_canary)

    def release(self, claim: Claim) -> None:
        """Give an item back, for another executor to start it at once; raises ItemLost."""
        with self._registry.writing_rows() as session:
            is_cancelled = self._store.lock(session, self._job_id).status == JobStatus.CANCELLED
            self._lock(session, claim.tenant_id)
            values = {
                "status": str(ItemStatus.CANCELLED if is_cancelled else ItemStatus.PENDING),
                "owner": None,
                # An interruption is no reason to give the item up.
                "attempts": sa.case((self._items.c.attempts > 0, self._items.c.attempts - 1), else_=0),
            }
            session.execute(sa.update(self._items).where(self._is(claim.tenant_id)).values(values))

    def _lock(self, session: Session, tenant_id: UUID) -> None:
        # Waits for a purge of the tenant, which erases what the row says of it.
        query = sa.select(self._items.c.tenant_id).where(self._is_mine(tenant_id)).with_for_update()
        if session.execute(query).first() is None:
            raise ItemLost

    def _record(self, session: Session, tenant_id: UUID, end: ItemEnd) -> None:
        tenants = self._tenants
        is_known = session.scalar(sa.select(tenants.c.id).where(tenants.c.id == tenant_id)) is not None
        values = {
            "status": str(end.status),
            "summary": end.summary if is_known else None,
            "error": end.error,
            "sqlstate": end.sqlstate,
            "frames": end.frames,
            "owner": None,
            "ended": self._now,
        }
        session.execute(sa.update(self._items).where(self._is(tenant_id)).values(values))

    def _is(self, tenant_id: UUID) -> sa.ColumnElement[bool]:
        return sa.and_(self._items.c.job_id == self._job_id, self._items.c.tenant_id == tenant_id)

    def _is_mine(self, tenant_id: UUID) -> sa.ColumnElement[bool]:
        owned = self._items.c.owner == self._owner
        return sa.and_(self._is(tenant_id), owned, self._items.c.status == str(ItemStatus.RUNNING))
