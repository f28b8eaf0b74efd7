"""The thread of a runner that calls reactions: one process of the fleet does so at a time."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy.background import Activity, keep_running
from tenancy.errors import TenancyError
from tenancy.lifecycle.reactions import LEASE_NAME, Reactor
from tenancy.registry.process_leases import ProcessLease
from tenancy.runner.failures import outage_of

if TYPE_CHECKING:
    from uuid import UUID

    from tenancy.fleet import Fleet

__all__ = ["ReactionWorker"]

logger: Final = logging.getLogger(__name__)

# Seconds between two looks at the log. Registry changes that the process has noticed wake it up earlier.
_POLL: Final = 1.0


class ReactionWorker:
    """Calls reactions while it holds their lease. Its thread executes :meth:`run`."""

    def __init__(self, fleet: Fleet, lease_seconds: float) -> None:
        self.activity = Activity("reactions", "Reactions are paused", logger, outage_of)
        self._reactor = Reactor(fleet.registry, fleet.reactions)
        self._lease = ProcessLease(fleet.registry, LEASE_NAME, lease_seconds)
        self._lease_seconds = lease_seconds
        self._alarm = threading.Event()

    def changed(self, _: set[UUID]) -> None:
        """Wake up the thread: tenants have changed."""
        self._alarm.set()

    def stop(self) -> None:
        """Ask the thread to end after the current reaction."""
        self._alarm.set()

    def run(self, stopping: threading.Event) -> None:
        """React until ``stopping`` is set; then release the lease."""
        keep_running(self.activity, lambda: self._step(stopping), stopping)
        with suppress(TenancyError, PersistenceError):  # it expires
            self._lease.release()

    def _step(self, stopping: threading.Event) -> bool:
        if stopping.is_set():
            return False
        pause = _POLL
        if not self._lease.is_due or self._lease.acquire():
            if self._reactor.has_work():
                with self._lease.kept():
                    self._reactor.run(lambda: self._lease.is_valid and not stopping.is_set())
        else:
            # Another process reacts. Look again soon enough to take over within the lease.
            pause = max(_POLL, self._lease_seconds * 0.2)
        self._alarm.wait(pause)
        self._alarm.clear()
        return True
