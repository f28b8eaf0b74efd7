"""Leases of single tasks: one process at a time does what a lease names.

A lease expires by the database's clock, so processes never compare clocks. It avoids duplicate work; it does not
protect data: a process that was paused may find out late that another one has taken over.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError

from eventsourcing_sqlalchemy.background import Activity, keep_running

if TYPE_CHECKING:
    from tenancy.registry.registry import Registry

__all__ = ["ProcessLease", "owner_of"]

logger: Final = logging.getLogger(__name__)

# Fraction of the lease between two renewals.
_RENEW: Final = 0.2


class ProcessLease:
    """A named lease. Safe to use from many threads; each object is an owner of its own."""

    def __init__(self, registry: Registry, name: str, seconds: float) -> None:
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        """The name of this process, as other processes see it."""
        self._registry = registry
        self._table = registry.rows.process_leases
        self._name = name
        self._seconds = seconds
        self._now: sa.ColumnElement[float] = sa.literal_column(registry.datastore.dialect.id_sequences.epoch_seconds)
        self._valid_until = -math.inf

    @property
    def is_valid(self) -> bool:
        """Whether this object owns the lease for certain, by the monotonic clock."""
        return time.monotonic() < self._valid_until

    @property
    def is_due(self) -> bool:
        """Whether the lease should be renewed, or is not owned."""
        return time.monotonic() > self._valid_until - self._seconds * (1 - _RENEW)

    def acquire(self) -> bool:
        """Take the lease if it is free, or renew it; return whether this object owns it."""
        began = time.monotonic()
        is_owned = self._take()
        self._valid_until = began + self._seconds if is_owned else -math.inf
        return is_owned

    def _take(self) -> bool:
        table = self._table
        values = {"owner": self.owner, "expires": self._now + self._seconds}
        free = sa.or_(table.c.owner == self.owner, table.c.expires < self._now)
        mine = table.c.name == self._name
        with self._registry.writing_rows() as session:
            taken: Any = session.execute(sa.update(table).where(mine, free).values(values))
            if taken.rowcount:
                return True
            if session.scalar(sa.select(table.c.owner).where(mine)) is not None:
                return False
        try:
            with self._registry.writing_rows() as session:
                session.execute(sa.insert(table).values(name=self._name, **values))
        except IntegrityError:
            return False  # another process was faster
        return True

    def release(self) -> None:
        """Let other processes take the lease at once; idempotent."""
        self._valid_until = -math.inf
        table = self._table
        with self._registry.writing_rows() as session:
            session.execute(sa.delete(table).where(table.c.name == self._name, table.c.owner == self.owner))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the owned lease in the background while the block runs."""
        stopping = threading.Event()
        activity = Activity("renewal of a lease", "A lease could not be renewed", logger)

        def renew() -> bool:
            if stopping.wait(self._seconds * _RENEW):
                return False
            self.acquire()
            return True

        thread = threading.Thread(
            target=keep_running, args=(activity, renew, stopping), name="tenancy-lease", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()


def owner_of(registry: Registry, name: str) -> str | None:
    """Return the process that owns a lease, or None."""
    table = registry.rows.process_leases
    now: sa.ColumnElement[float] = sa.literal_column(registry.datastore.dialect.id_sequences.epoch_seconds)
    with registry.reading() as session:
        return session.scalar(sa.select(table.c.owner).where(table.c.name == name, table.c.expires > now))
