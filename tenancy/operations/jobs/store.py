"""Record jobs in the registry, read them, and change their status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from eventsourcing.utils import get_topic

from tenancy.errors import JobEnded, JobNotEnded, JobNotFound
from tenancy.operations.jobs.job import Counts, ItemReport, ItemStatus, Job, JobPhase, JobReport, JobStatus
from tenancy.operations.jobs.kind import JobKind, PlannedItem
from tenancy.operations.jobs.options import JobOptions, max_failures

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.registry import Registry

__all__ = ["ENDED", "MAX_ATTEMPTS", "JobStore"]

MAX_ATTEMPTS: Final = 10
"""After so many attempts that ended with the death of their executor, without progress, an item fails."""
_DEATH: Final = "executor died"
_BATCH: Final = 1000
_RESUMABLE: Final = (JobStatus.HALTED, JobStatus.FAILED)
ENDED: Final = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED)
"""The statuses of jobs that can be removed."""


class JobStore:
    """The jobs of a registry. Safe to use from many threads and processes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._jobs = registry.rows.jobs
        self._items = registry.rows.job_items
        self._now: sa.ColumnElement[float] = sa.literal_column(registry.datastore.dialect.id_sequences.epoch_seconds)

    # -- recording --

    def create(
        self,
        kind: JobKind,
        items: Sequence[PlannedItem],
        options: JobOptions,
        *,
        actor: str | None,
        code_version: str | None,
    ) -> UUID:
        """Record a job and its items in one transaction; return the job's id."""
        job_id = uuid4()
        job = {
            "id": job_id,
            "kind": kind.name,
            "topic": get_topic(type(kind)),
            "parameters": dict(kind.parameters),
            "status": str(JobStatus.RUNNING),
            "phase": str(JobPhase.CANARIES if options.canary else JobPhase.REST),
            "has_check": options.check is not None,
            "error_budget": options.error_budget,
            "lease_seconds": options.lease_seconds,
            "actor": actor,
            "package_version": version("eventsourcing-sqlalchemy"),
            "code_version": code_version,
            "created_at": datetime.now(UTC),
        }
        rows = [
            {
                "job_id": job_id,
                "tenant_id": planned.tenant.id,
                "number": number,
                "is_canary": number < options.canary,
                "status": str(ItemStatus.PENDING),
                "expires": 0.0,
                "attempts": 0,
                "progress": {},
                "summary": planned.summary,
                "frames": [],
            }
            for number, planned in enumerate(items)
        ]
        with self._registry.writing_rows() as session:
            session.execute(sa.insert(self._jobs).values(job))
            for start in range(0, len(rows), _BATCH):
                session.execute(sa.insert(self._items), rows[start : start + _BATCH])
        return job_id

    # -- reading --

    def list(self) -> Sequence[Job]:
        """Return all jobs with their counts, newest first, with two queries."""
        with self._registry.reading() as session:
            rows = session.execute(sa.select(self._jobs).order_by(self._jobs.c.created_at.desc())).all()
            counts = self._counts(session, sa.true())
        return [_to_job(row, counts.get(row.id, Counts())) for row in rows]

    def unfinished(self) -> Sequence[Job]:
        """Return the jobs that run or are halted, with their counts, newest first, with two queries."""
        jobs = self._jobs
        which = jobs.c.status.in_([str(JobStatus.RUNNING), str(JobStatus.HALTED)])
        with self._registry.reading() as session:
            rows = session.execute(sa.select(jobs).where(which).order_by(jobs.c.created_at.desc())).all()
            counts = self._counts(session, self._items.c.job_id.in_([row.id for row in rows]))
        return [_to_job(row, counts.get(row.id, Counts())) for row in rows]

    def get(self, job_id: UUID) -> Job:
        """Return a job with its counts; raises JobNotFound."""
        with self._registry.reading() as session:
            row = session.execute(sa.select(self._jobs).where(self._jobs.c.id == job_id)).first()
            counts = self._counts(session, self._items.c.job_id == job_id)
        if row is None:
            raise _not_found(job_id)
        return _to_job(row, counts.get(job_id, Counts()))

    def state(self, job_id: UUID) -> tuple[JobStatus, JobPhase]:
        """Return the status and phase of a job; raises JobNotFound."""
        jobs = self._jobs
        with self._registry.reading() as session:
            row = session.execute(sa.select(jobs.c.status, jobs.c.phase).where(jobs.c.id == job_id)).first()
        if row is None:
            raise _not_found(job_id)
        return JobStatus(row.status), JobPhase(row.phase)

    def report(self, job_id: UUID) -> JobReport:
        """Return a job and its failed items; raises JobNotFound."""
        job = self.get(job_id)
        failures = self.items(job_id, [ItemStatus.FAILED]) if job.counts.failed else ()
        return JobReport(job=job, failures=failures)

    def items(self, job_id: UUID, statuses: Iterable[ItemStatus | str], *, since: float = 0.0) -> Sequence[ItemReport]:
        """Return a job's items with one of these statuses, in the order of their claims.

        With ``since``, a time by the database's clock in seconds since 1970, only those that ended then or later.
        """
        items, tenants = self._items, self._registry.rows.tenants
        query = (
            sa.select(items, tenants.c.slug)
            .join(tenants, tenants.c.id == items.c.tenant_id, isouter=True)
            .where(items.c.job_id == job_id, items.c.status.in_(list(map(str, statuses))))
            .order_by(items.c.number)
        )
        if since:
            query = query.where(items.c.ended >= since)
        with self._registry.reading() as session:
            return [_to_item(row) for row in session.execute(query)]

    def _counts(self, session: Session, which: sa.ColumnElement[bool]) -> dict[UUID, Counts]:
        items = self._items
        query = sa.select(items.c.job_id, items.c.status, sa.func.count().label("number")).where(which)
        found: dict[UUID, dict[str, int]] = {}
        for row in session.execute(query.group_by(items.c.job_id, items.c.status)):
            found.setdefault(row.job_id, {})[row.status] = row.number
        return {job_id: Counts(**numbers) for job_id, numbers in found.items()}

    # -- removal --

    def remove(self, job_ids: Sequence[UUID]) -> None:
        """Remove ended jobs and their items in one transaction; none when one of them cannot be removed.

        Raises JobNotFound, and JobNotEnded for a job that can be resumed or has items in progress.
        """
        jobs, items = self._jobs, self._items
        with self._registry.writing_rows() as session:
            for job_id in sorted(job_ids):  # in this order, to avoid deadlock
                job = self.lock(session, job_id)
                in_progress = sa.and_(
                    items.c.job_id == job_id, items.c.status == str(ItemStatus.RUNNING), items.c.expires >= self._now
                )
                if job.status not in ENDED or session.execute(sa.select(items.c.job_id).where(in_progress)).first():
                    raise _not_ended(job_id, job.status)
                session.execute(sa.delete(items).where(items.c.job_id == job_id))
                session.execute(sa.delete(jobs).where(jobs.c.id == job_id))

    # -- status --

    def cancel(self, job_id: UUID) -> None:
        """Cancel a job: nothing more is claimed, and running items end at their next check.

        Raises JobNotFound, and JobEnded for a job that has ended. Idempotent.
        """
        with self._registry.writing_rows() as session:
            job = self.lock(session, job_id)
            if job.status in (JobStatus.DONE, JobStatus.FAILED):
                raise _ended(job_id, "has ended")
            if job.status != JobStatus.CANCELLED:
                self._set(session, job_id, status=JobStatus.CANCELLED, reason=None)
            # Items of live executors end by themselves.
            expired = sa.and_(self._items.c.status == str(ItemStatus.RUNNING), self._items.c.expires < self._now)
            free = sa.and_(
                self._items.c.job_id == job_id, sa.or_(self._items.c.status == str(ItemStatus.PENDING), expired)
            )
            session.execute(sa.update(self._items).where(free).values(status=str(ItemStatus.CANCELLED), owner=None))

    def resume(self, job_id: UUID, *, error_budget: str | None = None) -> None:
        """Let executors claim the items of a job again; failed items are retried. Does nothing for a running job.

        ``error_budget`` replaces the recorded one. Raises JobNotFound, and JobEnded for a job that is done or
        cancelled.
        """
        if error_budget is not None:
            max_failures(error_budget, 0)
        with self._registry.writing_rows() as session:
            job = self.lock(session, job_id)
            if job.status in (JobStatus.DONE, JobStatus.CANCELLED):
                raise _ended(job_id, "is done" if job.status == JobStatus.DONE else "was cancelled")
            if error_budget is not None:
                session.execute(
                    sa.update(self._jobs).where(self._jobs.c.id == job_id).values(error_budget=error_budget)
                )
            if job.status in _RESUMABLE:
                self._set(session, job_id, status=JobStatus.RUNNING, reason=None)
                failed = sa.and_(self._items.c.job_id == job_id, self._items.c.status == str(ItemStatus.FAILED))
                values = {"status": str(ItemStatus.PENDING), "attempts": 0, "error": None, "sqlstate": None}
                session.execute(sa.update(self._items).where(failed).values(**values, frames=[], ended=None))

    def halt(self, job_id: UUID, reason: str) -> None:
        """Stop a running job; it can be resumed."""
        with self._registry.writing_rows() as session:
            if self.lock(session, job_id).status == JobStatus.RUNNING:
                self._set(session, job_id, status=JobStatus.HALTED, reason=reason)

    def pass_check(self, job_id: UUID) -> None:
        """Record that the check after the canaries has succeeded."""
        with self._registry.writing_rows() as session:
            if self.lock(session, job_id).phase == JobPhase.CHECK:
                self._set_phase(session, job_id, JobPhase.REST)

    def advance(self, job_id: UUID, *, has_finish: bool = False) -> None:
        """Start a running job's next phase, with ``has_finish`` also the last step, or end it, once its items ended."""
        with self._registry.writing_rows() as session:
            job = self.lock(session, job_id)
            if job.status != JobStatus.RUNNING or job.phase in (JobPhase.CHECK, JobPhase.FINISH):
                return
            in_canaries = job.phase == JobPhase.CANARIES
            if self._fail_exhausted(session, job_id):
                self.halt_after_failure(session, job_id, was_canary=in_canaries)
                return
            items = self._items
            which = [items.c.job_id == job_id, *([items.c.is_canary] if in_canaries else [])]
            counts = self._counts(session, sa.and_(*which)).get(job_id, Counts())
            if counts.unfinished:
                return
            if in_canaries:
                self._set_phase(session, job_id, JobPhase.CHECK if job.has_check else JobPhase.REST)
            elif has_finish and not counts.failed:
                self._set_phase(session, job_id, JobPhase.FINISH)
            else:
                self._set(session, job_id, status=JobStatus.FAILED if counts.failed else JobStatus.DONE, reason=None)

    def complete(self, job_id: UUID) -> None:
        """End a running job whose last step is done."""
        with self._registry.writing_rows() as session:
            job = self.lock(session, job_id)
            if job.status == JobStatus.RUNNING and job.phase == JobPhase.FINISH:
                self._set(session, job_id, status=JobStatus.DONE, reason=None)

    def _fail_exhausted(self, session: Session, job_id: UUID) -> bool:
        """Record the failure of items whose executors have died too often; return whether there were any."""
        items = self._items
        which = sa.and_(
            items.c.job_id == job_id,
            items.c.status == str(ItemStatus.RUNNING),
            items.c.expires < self._now,
            items.c.attempts >= MAX_ATTEMPTS,
        )
        values = {"status": str(ItemStatus.FAILED), "error": _DEATH, "summary": None, "owner": None, "ended": self._now}
        result: Any = session.execute(sa.update(items).where(which).values(values))
        return bool(result.rowcount)

    def halt_after_failure(self, session: Session, job_id: UUID, *, was_canary: bool) -> None:
        """Halt a job whose item has just failed in this transaction, if it was a canary or the budget is exceeded."""
        # Locked, so that of two items that fail at the same time, the second counts the first.
        job = self.lock(session, job_id)
        if job.status != JobStatus.RUNNING:
            return
        counts = self._counts(session, self._items.c.job_id == job_id)[job_id]
        if was_canary:
            self._set(session, job_id, status=JobStatus.HALTED, reason="A canary has failed.")
        elif counts.failed > max_failures(job.error_budget, counts.total):
            reason = f"{counts.failed} of {counts.total} items have failed; the error budget is {job.error_budget}."
            self._set(session, job_id, status=JobStatus.HALTED, reason=reason)

    def lock(self, session: Session, job_id: UUID) -> Any:
        """Lock a job until the transaction ends, and return its row; raises JobNotFound."""
        row = session.execute(sa.select(self._jobs).where(self._jobs.c.id == job_id).with_for_update()).first()
        if row is None:
            raise _not_found(job_id)
        return row

    def _set_phase(self, session: Session, job_id: UUID, phase: JobPhase) -> None:
        session.execute(sa.update(self._jobs).where(self._jobs.c.id == job_id).values(phase=str(phase)))

    def _set(self, session: Session, job_id: UUID, *, status: JobStatus, reason: str | None) -> None:
        ended_at = None if status is JobStatus.RUNNING else datetime.now(UTC)
        values = {"status": str(status), "reason": reason, "ended_at": ended_at}
        session.execute(sa.update(self._jobs).where(self._jobs.c.id == job_id).values(values))


def _not_found(job_id: UUID) -> JobNotFound:
    return JobNotFound(f"There is no job {job_id}.", remedy="List all jobs: tenancy jobs list")


def _ended(job_id: UUID, what: str) -> JobEnded:
    return JobEnded(f"Job {job_id} {what}.", remedy=f"See: tenancy jobs show {job_id}")


def _not_ended(job_id: UUID, status: str) -> JobNotEnded:
    if status in ENDED:
        return JobNotEnded(
            f"Job {job_id} was cancelled, and has tenants in progress.", remedy="Remove it when they have ended."
        )
    return JobNotEnded(f"Job {job_id} is {status}.", remedy=f"Cancel it first: tenancy jobs cancel {job_id}")


def _to_job(row: Any, counts: Counts) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        topic=row.topic,
        parameters=row.parameters,
        status=JobStatus(row.status),
        phase=JobPhase(row.phase),
        reason=row.reason,
        has_check=row.has_check,
        error_budget=row.error_budget,
        lease_seconds=row.lease_seconds,
        actor=row.actor,
        package_version=row.package_version,
        code_version=row.code_version,
        created_at=row.created_at,
        ended_at=row.ended_at,
        counts=counts,
    )


def _to_item(row: Any) -> ItemReport:
    return ItemReport(
        tenant_id=row.tenant_id,
        tenant=row.slug,
        status=ItemStatus(row.status),
        is_canary=row.is_canary,
        attempts=row.attempts,
        summary=row.summary,
        error=row.error,
        sqlstate=row.sqlstate,
        frames=tuple(row.frames),
        owner=row.owner,
        started_at=_moment(row.started),
        ended_at=_moment(row.ended),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
