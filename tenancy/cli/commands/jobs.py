"""The commands of ``tenancy jobs``: run, list, show, resume, cancel, remove, and work, which other commands start."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from tenancy.cli import job_options as options
from tenancy.cli import log, shapes
from tenancy.cli.errors import INTERRUPTED, CommandError
from tenancy.cli.job_options import JobFlags, JobID, TenantFilters
from tenancy.cli.job_progress import described
from tenancy.cli.jobs import execute, run_from_cli
from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Actor, DryRun, Json, Output, age, json_object
from tenancy.cli.output import json_of, say, show_json, show_pairs, show_table
from tenancy.cli.parsing import Command, Group

if TYPE_CHECKING:
    from tenancy.operations.jobs import Job

__all__ = ["COMMANDS", "jobs"]

# Seconds for which a tenant in progress may ignore the end of its time, before the process ends regardless.
_GRACE: Final = 1.0
_HEADER: Final = ("id", "kind", "status", "created", "total", "done", "skipped", "failed", "left", "actor")


def run(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Class of the operation in your code, as module:Class.")],
    slugs: options.Slugs = None,
    *,
    parameters: Annotated[
        str | None,
        typer.Option(
            "--parameters", metavar="JSON", help="JSON object of parameters for the operation.", show_default=False
        ),
    ] = None,
    status: options.Status = None,
    where: options.Where = None,
    limit: options.Limit = None,
    exclude: options.Except = None,
    processes: options.Processes = 2,
    canary: options.Canary = 0,
    check: options.Check = None,
    error_budget: options.ErrorBudget = "1%",
    lease_seconds: options.Lease = 20.0,
    drain_seconds: options.Drain = 30.0,
    dry_run: DryRun = False,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Run an operation of your own over many tenants."""
    run_from_cli(
        context,
        kind,
        json_object("--parameters", parameters),
        TenantFilters(slugs, status, where, limit, exclude),
        JobFlags(processes, canary, check, error_budget, lease_seconds, drain_seconds, dry_run, actor, json),
    )


def list_(
    context: typer.Context,
    *,
    output: Output = None,  # noqa: ARG001 (parsing.py writes the file)
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    with open_tenancy(context) as tenants:
        found = tenants.jobs.list()
    if json:
        show_json([shapes.job(each) for each in found])
        return
    show_table(_HEADER, [_row(each) for each in found])


def show(
    context: typer.Context,
    job_id: JobID,
    *,
    output: Output = None,  # noqa: ARG001 (parsing.py writes the file)
    json: Json = False,
) -> None:
    """Show a job, and its tenants that have failed or are running."""
    with open_tenancy(context) as tenants:
        job = tenants.jobs.get(job_id).job
        found = [item for item in tenants.jobs.items(job_id) if item.status in ("failed", "running")]
    assert job is not None
    if json:
        show_json({**shapes.job(job), "items": [shapes.item(each) for each in found]})
        return
    record = shapes.job(job)
    counts = ", ".join(f"{number} {name}" for name, number in record["counts"].items() if number)
    steps = {"next": "; ".join(record.pop("next_steps"))}
    show_pairs({**record, "counts": counts, "parameters": json_of(record["parameters"]), **steps}.items())
    for each in found:
        say(f"{each.status}: {described(each)}")


def resume(
    context: typer.Context,
    job_id: JobID,
    *,
    processes: options.Processes = 2,
    check: options.Check = None,
    error_budget: Annotated[
        str | None,
        typer.Option(
            "--error-budget",
            metavar="BUDGET",
            help="Number or percentage of tenants that may fail, instead of the job's.",
            show_default=False,
        ),
    ] = None,
    drain_seconds: options.Drain = 30.0,
    json: Json = False,
) -> None:
    """Resume a job, and retry what has failed.

    A job that is running elsewhere is joined.
    """
    from tenancy.operations.jobs.jobs import check_is_passed  # noqa: PLC0415 (slow: loads SQLAlchemy)
    from tenancy.operations.jobs.store import JobStore  # noqa: PLC0415 (as above)

    with open_tenancy(context) as tenants:
        store = JobStore(tenants.fleet.registry)
        check_is_passed(store.get(job_id), check)
        store.resume(job_id, error_budget=error_budget)
        flags = JobFlags(processes, 0, check, "", 0.0, drain_seconds, dry_run=False, actor=None, json=json)
        execute(context, tenants, job_id, flags)


def cancel(context: typer.Context, job_id: JobID, *, json: Json = False) -> None:
    """Cancel a job permanently.

    Tenants in progress are finished, or end at their next step. The others stay as they are.
    """
    with open_tenancy(context) as tenants:
        job = tenants.jobs.cancel(job_id)
    if json:
        show_json(shapes.job(job))
    else:
        say(f"Cancelled job {job.id}: {job.counts.cancelled} of {job.counts.total} tenants are left as they are.")


def remove(
    context: typer.Context,
    job_ids: Annotated[
        list[UUID] | None,
        typer.Argument(metavar="[JOB]...", help="Ids of the jobs: see tenancy jobs list.", show_default=False),
    ] = None,
    *,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Jobs that have ended longer ago, such as 30d or 12h, instead of ids.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        int,
        typer.Option("--keep", metavar="NUMBER", min=0, help="With --older-than: the number of newest jobs to keep."),
    ] = 0,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove the records of jobs that have ended.

    What the jobs have done stays as it is.
    """
    if (older_than is None) == (not job_ids):
        msg = "Pass either ids of jobs or --older-than."
        raise CommandError(msg, remedy="Name jobs, or an age: tenancy jobs remove --older-than 30d")
    with open_tenancy(context) as tenants:
        if older_than is not None:
            found = tenants.jobs.remove_older_than(age(older_than), keep=keep, dry_run=dry_run)
        else:
            reports = [tenants.jobs.get(job_id) for job_id in dict.fromkeys(job_ids or ())]
            found = [report.job for report in reports if report.job is not None]
            if not dry_run:
                tenants.jobs.remove([job.id for job in found])
    if json:
        show_json([{**shapes.job(each), "next_steps": []} for each in found])
    elif dry_run:
        show_table(_HEADER, [_row(each) for each in found])
    else:
        say(f"Removed {len(found)} {'job' if len(found) == 1 else 'jobs'}.")


def work(context: typer.Context, job_id: JobID, *, drain_seconds: options.Drain = 30.0, json: Json = False) -> None:
    """Execute a job until it ends, or until standard input does: for the commands that start a job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the first one handles it
    log.configure(as_json=json)
    from tenancy.operations.jobs.executor import Executor  # noqa: PLC0415 (slow: loads SQLAlchemy)

    with open_tenancy(context) as tenants:
        log.add_tenants(tenants)
        executor = Executor(tenants.fleet, job_id)

        def stop(*_: object) -> None:
            executor.stop(drain_seconds)
            # An operation that does not look for the signal loses its connections, and so its open transaction.
            end = threading.Timer(drain_seconds + _GRACE, os._exit, (INTERRUPTED,))
            end.daemon = True
            end.start()

        def wait_for_end_of_input() -> None:
            while os.read(0, 1):
                pass
            stop()

        signal.signal(signal.SIGTERM, stop)
        threading.Thread(target=wait_for_end_of_input, name="job-input", daemon=True).start()
        executor.run()


def _row(job: Job) -> tuple[object, ...]:
    counts = job.counts
    return (
        job.id,
        job.kind,
        job.status,
        shapes.moment(job.created_at),
        counts.total,
        counts.done,
        counts.skipped,
        counts.failed,
        counts.unfinished,
        job.actor,
    )


COMMANDS: Final[tuple[tuple[str, Callable[..., None], str], ...]] = (
    ("run", run, "tenancy --app shop:tenants jobs run shop_jobs:Recount --canary 2 --where plan=free"),
    ("list", list_, "tenancy jobs list"),
    ("show", show, "tenancy jobs show 0d6ac54b-1f4d-4c0f-8d5f-0b4b5b7a1c11"),
    ("resume", resume, "tenancy jobs resume 0d6ac54b-1f4d-4c0f-8d5f-0b4b5b7a1c11 --processes 4"),
    ("cancel", cancel, "tenancy jobs cancel 0d6ac54b-1f4d-4c0f-8d5f-0b4b5b7a1c11"),
    ("remove", remove, "tenancy jobs remove --older-than 30d --keep 10"),
)
"""Name, function and example of each command."""

jobs = typer.Typer(cls=Group, add_completion=False, rich_markup_mode=None, no_args_is_help=True)
for _name, _function, _example in COMMANDS:
    jobs.command(_name, cls=Command, epilog=f"Example: {_example}")(_function)
jobs.command("work", cls=Command, hidden=True)(work)
