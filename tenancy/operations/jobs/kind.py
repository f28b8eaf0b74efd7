"""What a job does to each tenant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["ItemSkipped", "JobItem", "JobKind", "PlannedItem"]


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """A tenant that a job would change, and how, in one line."""

    tenant: Tenant
    summary: str


class ItemSkipped(Exception):  # noqa: N818 (not an error: the item ends as skipped)
    """Raised by :meth:`JobKind.run` for a tenant that needs no work any more. The message says why."""


class JobItem(Protocol):
    """The running item of a job, for :meth:`JobKind.run`."""

    @property
    def progress(self) -> Mapping[str, Any]:
        """What :meth:`save_progress` has recorded last, in whichever process; empty at first."""

    def save_progress(self, progress: Mapping[str, Any]) -> None:
        """Record how far the item has come, for the process that resumes it; raises as :meth:`check` does.

        Call it outside of transactions: the registry may be in the same database, and SQLite has one writer.
        """

    def check(self) -> None:
        """Raise an exception that ends this attempt, if the process is to stop or has lost the item to another one.

        Long items call it between steps, at a point from which another process can resume. ``except Exception`` does
        not catch what it raises.
        """


class JobKind(ABC):
    """An operation over many tenants, constructed in each process that executes items.

    ``parameters`` are JSON, recorded with the job.
    """

    name: ClassVar[str]
    """The name in ``tenancy jobs list``."""

    def __init__(self, fleet: Fleet, parameters: Mapping[str, Any]) -> None:
        self.fleet = fleet
        self.parameters = parameters

    @property
    def max_running(self) -> int | None:
        """How many tenants all jobs of this kind together work on at a time, whatever the number of processes.

        None, the default, is no limit.
        """
        return None

    @abstractmethod
    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        """Return the tenants that need work, in the given order; changes nothing, and queries few times for all."""

    @abstractmethod
    def run(self, tenant: Tenant, item: JobItem) -> str:
        """Do the work for one tenant, and return a summary in one line.

        It is called again after a failure, and after a process was killed at any point: every step is idempotent. A
        process that was paused for longer than its lease may run at the same time as its successor: lock what two must
        not change at once. Other jobs wait until they may work on the tenant, so do not run one for it in here.

        Raises ItemSkipped for a tenant without work, and any other exception to let the item fail.
        """
