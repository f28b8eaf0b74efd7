"""Jobs and their items, as the registry records them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

__all__ = ["Counts", "ItemReport", "ItemStatus", "Job", "JobPhase", "JobReport", "JobStatus"]


class JobStatus(StrEnum):
    """A job's status."""

    RUNNING = "running"
    """Executors may claim items, whether or not there are any executors at the moment."""
    HALTED = "halted"
    """The error budget, a canary or the check has stopped it. It can be resumed."""
    CANCELLED = "cancelled"
    """Stopped by an operator, permanently."""
    DONE = "done"
    """All items have ended, and none has failed."""
    FAILED = "failed"
    """All items have ended, and some have failed. Resuming the job retries those."""


class JobPhase(StrEnum):
    """Which items of a running job can be claimed."""

    CANARIES = "canaries"
    """Only canaries: all of them must end well first."""
    CHECK = "check"
    """None, until the check after the canaries has succeeded."""
    REST = "rest"
    """All items."""
    FINISH = "finish"
    """None: all have ended well, and the last step of the operation is left, for the fleet as a whole."""


class ItemStatus(StrEnum):
    """An item's status."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """The tenant needed no work any more."""
    CANCELLED = "cancelled"
    """The job was cancelled before the item ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The number of items by status."""

    pending: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """The number of all items."""
        return self.unfinished + self.ended

    @property
    def unfinished(self) -> int:
        """The number of items that have not ended."""
        return self.pending + self.running

    @property
    def ended(self) -> int:
        """The number of items that have ended."""
        return self.done + self.failed + self.skipped + self.cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A recorded operation over many tenants."""

    id: UUID
    kind: str
    topic: str
    """The topic of the kind's class."""
    parameters: Mapping[str, Any] = field(hash=False)
    status: JobStatus
    phase: JobPhase
    reason: str | None
    """Why a halted job has stopped."""
    has_check: bool
    """Whether a check must succeed after the canaries."""
    error_budget: str
    """The number or percentage of items that may fail."""
    lease_seconds: float
    """Seconds of silence after which another executor takes over an item."""
    actor: str | None
    package_version: str
    """The version of this package that recorded the job."""
    code_version: str | None
    """The version of the user's code that recorded the job, if the fleet names one."""
    created_at: datetime
    ended_at: datetime | None
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemReport:
    """A job's item: one tenant."""

    tenant_id: UUID
    tenant: str | None
    """The tenant's slug; None after it was purged."""
    status: ItemStatus
    is_canary: bool
    attempts: int
    """How often it was started since it last recorded progress."""
    summary: str | None
    """What is to be done, what was done, or why it was skipped; None for a purged tenant."""
    error: str | None
    """The class of the error that let it fail."""
    sqlstate: str | None
    """The database's code for the error: an SQLSTATE, or SQLite's error name."""
    frames: Sequence[str]
    """The error's stack frames as module:function:line, innermost last."""
    owner: str | None
    """The executor that runs it."""
    started_at: datetime | None
    """The start of the last attempt, by the database's clock; so is the end."""
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """How a job stands, with the items that have failed."""

    job: Job | None
    """None when no tenant needed work: then no job was recorded."""
    failures: Sequence[ItemReport] = ()

    @property
    def counts(self) -> Counts:
        """The number of items by status."""
        return Counts() if self.job is None else self.job.counts

    @property
    def is_success(self) -> bool:
        """Whether all items have ended, and none has failed."""
        return self.job is None or self.job.status is JobStatus.DONE
