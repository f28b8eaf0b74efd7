"""Renew the lease of an executor's running item in a background thread."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from eventsourcing_sqlalchemy.background import Activity, keep_running
from tenancy.operations.jobs.claims import Claim, Claims
from tenancy.operations.jobs.job import JobStatus

__all__ = ["Renewal"]

logger: Final = logging.getLogger(__name__)

# Fraction of the lease between two renewals.
_RENEW: Final = 0.2


class Renewal:
    """The lease of the running item. Enter it to start the thread; safe to use from many threads."""

    def __init__(self, claims: Claims, lease_seconds: float) -> None:
        self._claims = claims
        self._seconds = lease_seconds
        # Guards the lease; held for operations in memory only.
        self._lock = threading.Lock()
        self._tenant_id: UUID | None = None
        self._valid_until = 0.0
        self._is_cancelled = False
        self._stopping = threading.Event()
        self._activity = Activity("renewal of the item's lease", "The lease of an item could not be renewed", logger)
        self._thread = threading.Thread(target=self._run, name="job-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def hold(self, claim: Claim) -> None:
        """Keep a claimed item until :meth:`drop`."""
        with self._lock:
            self._tenant_id, self._valid_until, self._is_cancelled = claim.tenant_id, claim.valid_until, False

    def drop(self) -> None:
        """Renew the item no more: it has ended."""
        with self._lock:
            self._tenant_id = None

    @property
    def is_valid(self) -> bool:
        """Whether this executor owns the item for certain."""
        return time.monotonic() < self._valid_until

    @property
    def is_cancelled(self) -> bool:
        """Whether the job of the item was cancelled."""
        return self._is_cancelled

    def _run(self) -> None:
        keep_running(self._activity, self._step, self._stopping)

    def _step(self) -> bool:
        if self._stopping.wait(self._seconds * _RENEW):
            return False
        tenant_id, began = self._tenant_id, time.monotonic()
        if tenant_id is not None:
            is_owned, status = self._claims.renew(tenant_id)
            with self._lock:
                if self._tenant_id == tenant_id:
                    self._valid_until = began + self._seconds if is_owned else 0.0
                    self._is_cancelled = status is JobStatus.CANCELLED
        return True
