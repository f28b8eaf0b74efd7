"""Leases: distribute the tenants over processes through rows in the registry.

A lease covers a bucket of tenant ids, so its cost does not grow with the fleet. Leases expire by the database's clock,
so processes never compare clocks. Leases only avoid duplicate work; they do not protect data. Positions only move
forward, even when two processes work for the same tenant.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sqlalchemy.orm import Session

    from tenancy.registry import Registry

__all__ = ["BUCKETS", "Leases", "bucket_of", "failing", "owners"]

BUCKETS: Final = 64

# Fraction of the lease time: the renewal interval, and how long before expiry this process stops using a lease.
_RENEW: Final = 0.2
# Seconds after which the row of a dead process is deleted.
_FORGET_AFTER: Final = 600.0


def bucket_of(tenant_id: UUID) -> int:
    """Return the bucket of a tenant."""
    return tenant_id.int % BUCKETS


class Leases:
    """The leases of this process. Only :meth:`are_valid` is thread-safe."""

    def __init__(self, registry: Registry, seconds: float) -> None:
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.interval = seconds * _RENEW
        self.held: frozenset[int] = frozenset()
        """The buckets assigned to this process."""
        self.failing: str | None = None
        """The failing background activities of this process, published to other processes."""
        self._registry = registry
        self._rows = registry.rows
        self._now: sa.ColumnElement[float] = sa.literal_column(registry.datastore.dialect.id_sequences.epoch_seconds)
        # Other processes check once per interval. Subtracting it lets them take over within the lease time.
        self._duration = seconds - self.interval
        self._valid_until = -math.inf
        self._releasing: set[int] = set()

    def are_valid(self) -> bool:
        """Return whether the leases are still valid by this process's monotonic clock."""
        return time.monotonic() < self._valid_until

    def tick(self, is_busy: Callable[[int], bool]) -> None:
        """Renew the leases, release buckets above the fair share, and take free ones below it.

        A surplus bucket leaves :attr:`held` at once. Its lease is released at the first later tick at which
        ``is_busy`` returns False for it, so no other process takes it while a slice is running.
        """
        began = time.monotonic()
        with self._registry.writing_rows() as session:
            live = self._register_process(session)
            fair_share = math.ceil(BUCKETS / live)
            mine = self._renew(session)
            self._releasing &= mine
            gone = {bucket for bucket in self._releasing if not is_busy(bucket)}
            self._release(session, gone)
            self._releasing -= gone
            mine -= gone
            kept = mine - self._releasing
            if len(kept) > fair_share:
                self._releasing |= set(sorted(kept)[fair_share:])
            elif len(kept) < fair_share:
                stay = set(sorted(self._releasing)[: fair_share - len(kept)])
                self._releasing -= stay
                mine |= self._take(session, fair_share - len(mine)) if len(mine) < fair_share else set()
        self.held = frozenset(mine - self._releasing)
        self._valid_until = began + self._duration

    def leave(self) -> None:
        """Release all leases and unregister this process."""
        self._valid_until = -math.inf
        self.held = frozenset()
        with self._registry.writing_rows() as session:
            leases, processes = self._rows.leases, self._rows.processes
            session.execute(sa.update(leases).where(leases.c.owner == self.owner).values(owner=None, expires=0))
            session.execute(sa.delete(processes).where(processes.c.owner == self.owner))

    def create_rows(self) -> None:
        """Create missing bucket rows, and delete the rows of dead processes."""
        leases, processes = self._rows.leases, self._rows.processes
        with self._registry.reading() as session:
            existing = set(session.scalars(sa.select(leases.c.bucket)))
        for bucket in set(range(BUCKETS)) - existing:
            try:
                with self._registry.writing_rows() as session:
                    session.execute(sa.insert(leases).values(bucket=bucket, owner=None, expires=0))
            except IntegrityError:
                continue  # another process has just created it
        with self._registry.writing_rows() as session:
            session.execute(sa.delete(processes).where(processes.c.expires < self._now - _FORGET_AFTER))

    def _register_process(self, session: Session) -> int:
        processes = self._rows.processes
        mine = processes.c.owner == self.owner
        values = {"expires": self._now + self._duration, "failing": self.failing}
        result: Any = session.execute(sa.update(processes).where(mine).values(values))
        if not result.rowcount:
            session.execute(sa.insert(processes).values(owner=self.owner, **values))
        count = sa.select(sa.func.count()).select_from(processes).where(processes.c.expires > self._now)
        return session.scalar(count) or 1

    def _renew(self, session: Session) -> set[int]:
        leases = self._rows.leases
        mine = leases.c.owner == self.owner
        session.execute(sa.update(leases).where(mine).values(expires=self._now + self._duration))
        return set(session.scalars(sa.select(leases.c.bucket).where(mine)))

    def _release(self, session: Session, buckets: Collection[int]) -> None:
        leases = self._rows.leases
        if buckets:
            which = sa.and_(leases.c.owner == self.owner, leases.c.bucket.in_(buckets))
            session.execute(sa.update(leases).where(which).values(owner=None, expires=0))

    def _take(self, session: Session, count: int) -> set[int]:
        leases = self._rows.leases
        # Skip rows that another process is taking; do not wait for them.
        free = (
            sa.select(leases.c.bucket)
            .where(sa.or_(leases.c.owner.is_(None), leases.c.expires < self._now))
            .order_by(leases.c.bucket)
            .limit(count)
            .with_for_update(skip_locked=True)
        )
        taken = set(session.scalars(free))
        if taken:
            values = {"owner": self.owner, "expires": self._now + self._duration}
            session.execute(sa.update(leases).where(leases.c.bucket.in_(taken)).values(values))
        return taken


def owners(registry: Registry) -> dict[int, str]:
    """Return the owner of each leased bucket."""
    leases = registry.rows.leases
    now: sa.ColumnElement[float] = sa.literal_column(registry.datastore.dialect.id_sequences.epoch_seconds)
    rows: Iterable[Any]
    with registry.reading() as session:
        rows = session.execute(sa.select(leases).where(leases.c.owner.is_not(None), leases.c.expires > now)).all()
    return {row.bucket: row.owner for row in rows}


def failing(registry: Registry) -> dict[str, str]:
    """Return the failing background activities, by the owner of the process."""
    processes = registry.rows.processes
    with registry.reading() as session:
        rows = session.execute(sa.select(processes).where(processes.c.failing.is_not(None))).all()
    return {row.owner: row.failing for row in rows}
