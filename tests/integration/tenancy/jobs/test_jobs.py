"""Jobs in one process: what is recorded, what stops them, and how they are resumed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from tenancy import Tenancy, Tenant
from tenancy.errors import InvalidArgument, JobEnded, JobNotEnded, JobNotFound
from tenancy.operations.jobs import (
    JobItem,
    JobKind,
    JobOptions,
    JobPhase,
    JobStatus,
    PlannedItem,
    TenantSelection,
)
from tenancy.operations.jobs.job import Job
from tests.integration.tenancy.jobs.conftest import SLUGS
from tests.samples.counting_job import Count, Doomed, effects, starts


def job_of(tenants: Tenancy) -> Job:
    (job,) = tenants.jobs.list()
    return job


def test_every_tenant_is_worked_on_once(tenants: Tenancy) -> None:
    report = tenants.jobs.run(Count, {"steps": 2, "skipped": ["tenant-3"]}, actor="ops-7")
    assert report.is_success
    assert report.job == job_of(tenants)
    assert (report.counts.done, report.counts.skipped, report.counts.total) == (5, 1, 6)
    assert effects(tenants) == {slug: 2 for slug in SLUGS if slug != "tenant-3"}
    assert starts(tenants) == dict.fromkeys(SLUGS, 1)
    job = job_of(tenants)
    assert (job.kind, job.topic) == ("count", "tests.samples.counting_job:Count")
    assert (job.parameters, job.actor) == ({"steps": 2, "skipped": ["tenant-3"]}, "ops-7")
    assert (job.package_version, job.code_version) == (version("eventsourcing-sqlalchemy"), "7.1")
    assert job.ended_at is not None
    items = tenants.jobs.items(job.id)
    assert [item.tenant for item in items] == SLUGS
    assert [item.summary for item in items] == ["2 steps"] * 3 + ["nothing to count"] + ["2 steps"] * 2
    assert all(item.started_at and item.ended_at and item.started_at <= item.ended_at for item in items)


def test_only_tenants_that_need_work_are_recorded(tenants: Tenancy) -> None:
    selection = TenantSelection(limit=2)
    report = tenants.jobs.run(Count, {"idle": SLUGS[:3]}, tenants=selection)
    assert report.counts.total == 2
    assert set(effects(tenants)) == {"tenant-3", "tenant-4"}


def test_nothing_is_recorded_without_work(tenants: Tenancy) -> None:
    report = tenants.jobs.run(Count, {"idle": SLUGS})
    assert report.is_success
    assert report.job is None
    assert report.counts.total == 0
    assert tenants.jobs.list() == []


def test_a_failed_item_keeps_class_and_frames_but_no_value(tenants: Tenancy) -> None:
    report = tenants.jobs.run(Count, {"poisoned": ["tenant-2"]})
    assert not report.is_success
    assert report.job is not None
    assert report.job.status is JobStatus.FAILED
    assert (report.counts.done, report.counts.failed) == (5, 1)
    (failure,) = report.failures
    assert (failure.tenant, failure.error, failure.sqlstate) == ("tenant-2", "builtins.ValueError", None)
    assert failure.frames[-1].startswith("tests.samples.counting_job:Count.run:")
    with tenants.fleet.registry.reading() as session:
        rows = session.execute(sa.select(tenants.fleet.registry.rows.job_items)).all()
    assert "canary" not in str(rows)


def test_a_kind_that_ends_the_process_fails(tenants: Tenancy) -> None:
    report = tenants.jobs.run(Doomed, options=JobOptions(error_budget="100%"))
    assert report.counts.failed == 6
    assert {failure.error for failure in report.failures} == {"builtins.SystemExit"}


def test_more_failures_than_the_budget_halt_the_job_and_resuming_retries_them(tenants: Tenancy, tmp_path: Path) -> None:
    cure = tmp_path / "cure"
    parameters = {"poisoned": ["tenant-1", "tenant-3"], "cure": str(cure)}
    report = tenants.jobs.run(Count, parameters)
    assert report.job is not None
    assert report.job.status is JobStatus.HALTED
    assert report.job.reason == "2 of 6 items have failed; the error budget is 1%."
    assert (report.counts.done, report.counts.failed, report.counts.pending) == (2, 2, 2)
    report = tenants.jobs.resume(report.job.id, error_budget="2")
    assert report.job is not None
    assert (report.job.status, report.job.reason) == (JobStatus.FAILED, None)
    assert (report.counts.done, report.counts.failed) == (4, 2)
    cure.touch()
    report = tenants.jobs.resume(report.job.id)
    assert report.is_success
    assert effects(tenants) == dict.fromkeys(SLUGS, 1)
    assert starts(tenants) == {slug: 3 if slug in parameters["poisoned"] else 1 for slug in SLUGS}


def test_a_failed_canary_halts_the_job(tenants: Tenancy) -> None:
    options = JobOptions(canary=2, error_budget="50%")
    report = tenants.jobs.run(Count, {"poisoned": ["tenant-0"]}, options=options)
    assert report.job is not None
    assert (report.job.status, report.job.phase) == (JobStatus.HALTED, JobPhase.CANARIES)
    assert report.job.reason == "A canary has failed."
    assert starts(tenants) == {"tenant-0": 1}
    report = tenants.jobs.resume(report.job.id)
    assert report.counts.pending == 5


def test_the_check_runs_after_the_canaries(tenants: Tenancy) -> None:
    seen: list[dict[str, int]] = []

    def check() -> bool:
        seen.append(effects(tenants))
        return True

    report = tenants.jobs.run(Count, options=JobOptions(canary=2, check=check))
    assert report.is_success
    assert seen == [{"tenant-0": 1, "tenant-1": 1}]


def test_a_failed_check_halts_the_job_until_it_succeeds(tenants: Tenancy) -> None:
    report = tenants.jobs.run(Count, options=JobOptions(canary=2, check=lambda: False))
    assert report.job is not None
    assert (report.job.status, report.job.phase) == (JobStatus.HALTED, JobPhase.CHECK)
    assert report.job.reason == "The check after the canaries has failed."
    assert report.counts.pending == 4
    with pytest.raises(InvalidArgument, match="needs the check"):
        tenants.jobs.resume(report.job.id)
    report = tenants.jobs.resume(report.job.id, check=lambda: True)
    assert report.is_success


def test_a_cancelled_job_cannot_be_resumed(tenants: Tenancy) -> None:
    report = tenants.jobs.run(Count, {"poisoned": ["tenant-0"]}, options=JobOptions(canary=1))
    assert report.job is not None
    job = tenants.jobs.cancel(report.job.id)
    assert (job.status, job.counts.cancelled, job.counts.failed) == (JobStatus.CANCELLED, 5, 1)
    assert tenants.jobs.cancel(job.id) == job
    with pytest.raises(JobEnded, match="was cancelled"):
        tenants.jobs.resume(job.id)


def test_a_job_that_is_done_is_neither_resumed_nor_cancelled(tenants: Tenancy) -> None:
    report = tenants.jobs.run(Count)
    assert report.job is not None
    with pytest.raises(JobEnded, match="is done"):
        tenants.jobs.resume(report.job.id)
    with pytest.raises(JobEnded, match="has ended"):
        tenants.jobs.cancel(report.job.id)


@pytest.mark.parametrize("method", ["resume", "cancel", "get", "items"])
def test_an_unknown_job_is_not_found(tenants: Tenancy, method: str) -> None:
    with pytest.raises(JobNotFound, match="There is no job"):
        getattr(tenants.jobs, method)(uuid4())


def test_a_purge_erases_what_items_say_of_the_tenant(tenants: Tenancy) -> None:
    report = tenants.jobs.run(Count)
    assert report.job is not None
    certificate = tenants.purge("tenant-2")
    assert certificate.left["registry rows"] == 0
    items = tenants.jobs.items(report.job.id)
    assert [(item.tenant, item.summary) for item in items][2] == (None, None)
    assert len(items) == 6


def test_remaining_summaries_are_counted(tenants: Tenancy) -> None:
    tenants.jobs.run(Count)
    tenant = tenants["tenant-2"]
    assert tenants.fleet.registry.remaining_rows(tenant.id) == 2  # the tenant's row and its item


def test_the_item_of_a_tenant_that_was_purged_meanwhile_is_skipped(tenants: Tenancy) -> None:
    report = tenants.jobs.run(Count, {"poisoned": ["tenant-0"]}, options=JobOptions(error_budget="0"))
    assert report.job is not None
    tenants.purge("tenant-3")
    report = tenants.jobs.resume(report.job.id, error_budget="1")
    assert (report.counts.done, report.counts.failed, report.counts.skipped) == (4, 1, 1)


def test_a_kind_that_other_processes_cannot_import_is_refused(tenants: Tenancy) -> None:
    class Local(Count):
        name = "local"

    with pytest.raises(InvalidArgument, match="cannot import"):
        tenants.jobs.run(Local)
    assert tenants.jobs.list() == []


def test_what_is_not_a_kind_is_refused(tenants: Tenancy) -> None:
    with pytest.raises(InvalidArgument, match="a class of JobKind"):
        tenants.jobs.run(int)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="not JSON"):
        tenants.jobs.run(Count, {"steps": {1, 2}})
    with pytest.raises(InvalidArgument, match="name"):
        tenants.jobs.run(Nameless)


class Nameless(JobKind):
    """Lacks what is required."""

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        raise NotImplementedError

    def run(self, tenant: Tenant, item: JobItem) -> str:
        raise NotImplementedError


# -- removal --


def halted(tenants: Tenancy) -> Job:
    """Return a job whose canary has failed."""
    report = tenants.jobs.run(Count, {"poisoned": SLUGS}, options=JobOptions(canary=1))
    assert report.job is not None
    return report.job


def rows_of_items(tenants: Tenancy) -> int:
    with tenants.fleet.registry.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(tenants.fleet.registry.rows.job_items)) or 0


def test_ended_jobs_are_removed_with_their_items(tenants: Tenancy) -> None:
    done = tenants.jobs.run(Count).job
    failed = tenants.jobs.run(Count, {"poisoned": SLUGS[:1]}).job
    cancelled = tenants.jobs.cancel(halted(tenants).id)
    kept = tenants.jobs.run(Count).job
    assert done
    assert failed
    assert kept
    tenants.jobs.remove([done.id, failed.id, cancelled.id])
    assert tenants.jobs.list() == [kept]
    assert rows_of_items(tenants) == len(SLUGS)
    with pytest.raises(JobNotFound):
        tenants.jobs.remove([kept.id, done.id])
    assert tenants.jobs.list() == [kept]


def test_a_job_that_can_be_resumed_is_not_removed(tenants: Tenancy) -> None:
    done, job = tenants.jobs.run(Count).job, halted(tenants)
    assert done is not None
    with pytest.raises(JobNotEnded, match=f"Job {job.id} is halted.*jobs cancel {job.id}"):
        tenants.jobs.remove([done.id, job.id])
    assert tenants.jobs.remove_older_than(timedelta(0)) == [done]
    assert tenants.jobs.list() == [job]
    assert tenants.jobs.remove_older_than(timedelta(0)) == []


def test_a_cancelled_job_with_tenants_in_progress_is_not_removed(tenants: Tenancy) -> None:
    job = halted(tenants)
    items = tenants.fleet.registry.rows.job_items
    with tenants.fleet.registry.writing_rows() as session:
        session.execute(
            sa.update(items).where(items.c.number == 1).values(status="running", owner="other", expires=2.0**40)
        )
    tenants.jobs.cancel(job.id)
    with pytest.raises(JobNotEnded, match="in progress"):
        tenants.jobs.remove([job.id])
    assert tenants.jobs.remove_older_than(timedelta(0)) == []
    assert len(tenants.jobs.list()) == 1


def test_old_jobs_are_removed_but_the_newest(tenants: Tenancy) -> None:
    jobs = [report.job for report in [tenants.jobs.run(Count) for _ in range(4)] if report.job]
    newest_first = jobs[::-1]
    assert tenants.jobs.remove_older_than(timedelta(minutes=5)) == []
    assert tenants.jobs.remove_older_than(timedelta(0), keep=1, dry_run=True) == newest_first[1:]
    assert tenants.jobs.list() == newest_first
    assert tenants.jobs.remove_older_than(timedelta(0), keep=1) == newest_first[1:]
    assert tenants.jobs.list() == newest_first[:1]
    for wrong in ({"age": timedelta(-1)}, {"age": timedelta(0), "keep": -1}):
        with pytest.raises(InvalidArgument):
            tenants.jobs.remove_older_than(**wrong)
