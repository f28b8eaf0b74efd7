"""Run jobs in this process, and inspect, resume, cancel and remove jobs of any process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tenancy.arguments import check_type
from tenancy.errors import InvalidArgument, JobNotEnded, JobNotFound
from tenancy.operations.jobs.executor import Executor
from tenancy.operations.jobs.job import ItemReport, ItemStatus, Job, JobPhase, JobReport
from tenancy.operations.jobs.kind import JobKind
from tenancy.operations.jobs.options import JobOptions
from tenancy.operations.jobs.planning import plan_job, record_job
from tenancy.operations.jobs.selection import TenantSelection
from tenancy.operations.jobs.store import ENDED, JobStore

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["Jobs", "check_is_passed", "run_job"]


class Jobs:
    """The jobs of a fleet. Safe to use from many threads."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._store = JobStore(fleet.registry)

    def run(
        self,
        kind: type[JobKind],
        parameters: Mapping[str, Any] = MappingProxyType({}),
        *,
        tenants: TenantSelection | None = None,
        options: JobOptions | None = None,
        actor: str | None = None,
    ) -> JobReport:
        """Run a job in this process, one tenant after the other, and return how it has ended.

        ``tenants`` are by default all that have tables. An item that fails does not raise: see the report. Executors of
        other processes may join with ``tenancy jobs resume``. KeyboardInterrupt leaves the job to be resumed.
        """
        chosen = TenantSelection() if tenants is None else tenants
        found = chosen.tenants(self._fleet.registry)
        return run_job(self._fleet, kind, parameters, found, options, actor=actor, limit=chosen.limit)

    def list(self) -> Sequence[Job]:
        """Return all jobs, newest first."""
        return self._store.list()

    def unfinished(self) -> Sequence[Job]:
        """Return the jobs that run or are halted, newest first."""
        return self._store.unfinished()

    def get(self, job_id: UUID) -> JobReport:
        """Return a job and its failed items; raises JobNotFound."""
        return self._store.report(job_id)

    def items(self, job_id: UUID) -> Sequence[ItemReport]:
        """Return all items of a job in the order of their claims; raises JobNotFound."""
        self._store.get(job_id)
        return self._store.items(job_id, ItemStatus)

    def resume(
        self, job_id: UUID, *, check: Callable[[], bool] | None = None, error_budget: str | None = None
    ) -> JobReport:
        """Execute a job's remaining items in this process, and return how it has ended.

        A running job is joined. Failed items of a halted or failed one are retried. A job that waits for the check
        after its canaries needs the ``check`` again. ``error_budget`` replaces the recorded one.

        Raises JobNotFound, and JobEnded for a job that is done or cancelled.
        """
        check_is_passed(self._store.get(job_id), check)
        self._store.resume(job_id, error_budget=error_budget)
        Executor(self._fleet, job_id, check).run()
        return self._store.report(job_id)

    def cancel(self, job_id: UUID) -> Job:
        """Cancel a job permanently, and return it. Items that are running end at their next check, or finish.

        Raises JobNotFound, and JobEnded for a job that has ended.
        """
        self._store.cancel(job_id)
        return self._store.get(job_id)

    def remove(self, job_ids: Sequence[UUID]) -> None:
        """Remove the records of jobs that have ended, all or none.

        Raises JobNotFound, and JobNotEnded for a job that can be resumed or has items in progress. A failed job has
        ended, and cannot be resumed any more.
        """
        self._store.remove(job_ids)

    def remove_older_than(self, age: timedelta, *, keep: int = 0, dry_run: bool = False) -> Sequence[Job]:
        """Remove the records of jobs that have ended longer than ``age`` ago, and return them, newest first.

        The newest ``keep`` jobs remain, and so do jobs with items in progress. ``dry_run`` only returns the others.
        """
        check_type("age", age, timedelta, "a timedelta")
        check_type("keep", keep, int, "a number of jobs")
        if age < timedelta(0) or keep < 0:
            msg = "The age or the number of jobs to keep is negative."
            raise InvalidArgument(msg, remedy="Pass zero or more.")
        until = datetime.now(UTC) - age
        old = [
            job
            for job in self._store.list()[keep:]
            if job.status in ENDED and job.ended_at is not None and job.ended_at <= until and not job.counts.running
        ]
        if not dry_run:
            for job in old:
                with suppress(JobNotFound, JobNotEnded):  # removed or resumed meanwhile
                    self._store.remove([job.id])
        return old


def run_job(
    fleet: Fleet,
    kind: type[JobKind],
    parameters: Mapping[str, Any],
    tenants: Sequence[Tenant],
    options: JobOptions | None = None,
    *,
    actor: str | None = None,
    limit: int | None = None,
) -> JobReport:
    """Plan a job for some tenants, record it, and execute it in this process; return how it has ended.

    Records nothing when no tenant needs work.
    """
    chosen = JobOptions() if options is None else options
    operation, items = plan_job(fleet, kind, parameters, tenants, limit)
    if not items:
        return JobReport(job=None)
    job_id = record_job(fleet, operation, items, chosen, actor)
    Executor(fleet, job_id, chosen.check).run()
    return JobStore(fleet.registry).report(job_id)


def check_is_passed(job: Job, check: object) -> None:
    """Raise InvalidArgument for a job that still needs a check, if none is passed: the registry does not record it."""
    if job.has_check and job.phase in (JobPhase.CANARIES, JobPhase.CHECK) and check is None:
        msg = f"Job {job.id} needs the check after its canaries."
        raise InvalidArgument(msg, remedy="Pass it again: check, or --check on the command line.")
