"""A job that runs until it is told to end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from tenancy import Tenancy, Tenant
from tenancy.operations.jobs import JobItem, JobKind, PlannedItem


class WaitingJob(JobKind):
    """Waits for an event."""

    name = "waiting"
    ending: ClassVar[threading.Event]

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        return [PlannedItem(tenant, "wait") for tenant in tenants]

    def run(self, tenant: Tenant, item: JobItem) -> str:
        self.ending.wait()
        return "waited"

    @classmethod
    @contextmanager
    def running(cls, tenants: Tenancy, ending: threading.Event) -> Iterator[None]:
        """Run the job in a thread until the event is set."""
        cls.ending = ending
        thread = threading.Thread(target=tenants.jobs.run, args=(cls,))
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()
