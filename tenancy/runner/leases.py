"""Share the tenants between processes: who works for which, in rows of the control database.

What is leased is a bucket of tenants, by their ids: what that costs does not grow with the fleet. A lease ends by the
database's clock, so no two clocks are compared. Nothing depends on leases but that work is not done twice: positions
only move forward, whoever works.
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

# Of the lease time: how often leases are renewed, and how long before its end this process stops to rely on one.
_RENEW: Final = 0.2
_FORGET_AFTER: Final = 600.0


def bucket_of(tenant_id: UUID) -> int:
    """Return the bucket of a tenant."""
    return tenant_id.int % BUCKETS


class Leases:
    """The leases of this process. For one thread, but for :func:`are_valid`."""

    def __init__(self, registry: Registry, seconds: float) -> None:
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.interval = seconds * _RENEW
        self.held: frozenset[int] = frozenset()
        """The buckets to work for."""
        self.failing: str | None = None
        """What fails in this process, for others to know."""
        self._registry = registry
        self._rows = registry.rows
        self._now: sa.ColumnElement[float] = sa.literal_column(registry.datastore.dialect.id_sequences.epoch_seconds)
        # A process that has died is noticed by others at the end of its lease at the latest: they look this often.
        self._duration = seconds - self.interval
        self._valid_until = -math.inf
        self._releasing: set[int] = set()

    def are_valid(self) -> bool:
        """Return whether the leases still hold, as far as this process knows."""
        return time.monotonic() < self._valid_until

    def tick(self, is_busy: Callable[[int], bool]) -> None:
        """Renew the leases, give back what is more than a fair share and take what is free.

        A bucket that is given back is let go at once, and offered to others when ``is_busy`` says that nobody works for
        it any more, at the next tick.
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
        """Give everything back."""
        self._valid_until = -math.inf
        self.held = frozenset()
        with self._registry.writing_rows() as session:
            leases, processes = self._rows.leases, self._rows.processes
            session.execute(sa.update(leases).where(leases.c.owner == self.owner).values(owner=None, expires=0))
            session.execute(sa.delete(processes).where(processes.c.owner == self.owner))

    def create_rows(self) -> None:
        """Make the rows of the buckets where there are none, and remove those of processes long gone."""
        leases, processes = self._rows.leases, self._rows.processes
        with self._registry.reading() as session:
            there = set(session.scalars(sa.select(leases.c.bucket)))
        for bucket in set(range(BUCKETS)) - there:
            try:
                with self._registry.writing_rows() as session:
                    session.execute(sa.insert(leases).values(bucket=bucket, owner=None, expires=0))
            except IntegrityError:
                continue  # another process has just made it
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
        # Rows that another process is about to take are passed over, not waited for.
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
    """Return who works for which bucket, without those for which nobody does."""
    leases = registry.rows.leases
    now: sa.ColumnElement[float] = sa.literal_column(registry.datastore.dialect.id_sequences.epoch_seconds)
    rows: Iterable[Any]
    with registry.reading() as session:
        rows = session.execute(sa.select(leases).where(leases.c.owner.is_not(None), leases.c.expires > now)).all()
    return {row.bucket: row.owner for row in rows}


def failing(registry: Registry) -> dict[str, str]:
    """Return what fails in which process, without those in which nothing does."""
    processes = registry.rows.processes
    with registry.reading() as session:
        rows = session.execute(sa.select(processes).where(processes.c.failing.is_not(None))).all()
    return {row.owner: row.failing for row in rows}
