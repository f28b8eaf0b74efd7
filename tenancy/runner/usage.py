"""The thread that rolls up the usage of the tenants which are assigned to this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from eventsourcing_sqlalchemy.background import Activity, keep_running
from tenancy.runner.failures import outage_of

if TYPE_CHECKING:
    from tenancy.runner.assignments import Assignments
    from tenancy.storage.usage import FleetUsage

__all__ = ["INTERVAL", "UsageRecorder"]

logger = logging.getLogger(__name__)

INTERVAL: Final = 60.0
"""Seconds between two rollups, and so the accuracy of the times of activity."""


class UsageRecorder:
    """Rolls up every minute. Not in the coordinator's thread: the first rollup of a large table may take long."""

    def __init__(self, usage: FleetUsage, assignments: Assignments, may_work: Callable[[], bool]) -> None:
        self._usage = usage
        self._assignments = assignments
        self._may_work = may_work
        self.activity = Activity("usage", "Counting the tenants' usage fails", logger, outage_of)

    def run(self, stopping: threading.Event) -> None:
        """Roll up until ``stopping`` is set."""
        keep_running(self.activity, lambda: self._run_one(stopping), stopping)

    def _run_one(self, stopping: threading.Event) -> bool:
        if stopping.wait(INTERVAL):
            return False
        if self._may_work():
            tenants = {each.tenant.id: each.tenant for each in self._assignments.all()}
            self._usage.measure(tenants.values())
        return True
