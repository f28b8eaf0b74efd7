"""Run a job from the command line: plan it, record it, start its processes, and show how it goes."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import typer

from tenancy.cli import shapes
from tenancy.cli.errors import CommandError
from tenancy.cli.job_options import JobFlags, TenantFilters
from tenancy.cli.job_processes import ExecutorProcesses, interruptible, run_check
from tenancy.cli.job_progress import JobProgress
from tenancy.cli.loader import FleetOptions, open_tenancy
from tenancy.cli.output import say, show_json, show_table
from tenancy.cli.parsing import ARGUMENTS
from tenancy.errors import RegistryUnavailable

if TYPE_CHECKING:
    from tenancy import Tenancy
    from tenancy.fleet import Fleet
    from tenancy.operations.jobs import ItemReport, Job, JobKind, PlannedItem
    from tenancy.operations.jobs.store import JobStore

__all__ = ["execute", "run_from_cli"]

# Seconds between two looks at the job.
_POLL: Final = 0.25
# How much later than its end, by the database's clock, an item may become visible. Seconds.
_LATENESS: Final = 10.0


def run_from_cli(
    context: typer.Context,
    kind: type[JobKind] | str,
    parameters: Mapping[str, Any],
    filters: TenantFilters,
    flags: JobFlags,
    *,
    prepare: Callable[[Fleet], None] | None = None,
) -> None:
    """Run a job over the chosen tenants in processes of their own, or show with ``--dry-run`` what it would do.

    ``kind`` is a class, or its topic if users name one. ``prepare`` is called before the job is planned, but not with
    ``--dry-run``. Raises CommandError when some have failed, when the job was
    halted or cancelled, and when it was interrupted.
    """
    from eventsourcing.utils import resolve_topic  # noqa: PLC0415 (slow; loaded next in any case)

    from tenancy.operations.jobs import JobOptions  # noqa: PLC0415 (as above)
    from tenancy.operations.jobs.planning import plan_job, record_job  # noqa: PLC0415 (as above)

    with open_tenancy(context) as tenants:
        selection = filters.selection()
        # Executors do not run the check; this process does.
        options = JobOptions(
            canary=flags.canary,
            check=None if flags.check is None else lambda: False,
            error_budget=flags.error_budget,
            lease_seconds=flags.lease_seconds,
        )
        cls = resolve_topic(kind) if isinstance(kind, str) else kind
        if prepare is not None and not flags.dry_run:
            prepare(tenants.fleet)
        found = selection.tenants(tenants.fleet.registry)
        operation, items = plan_job(tenants.fleet, cls, parameters, found, selection.limit)
        if flags.dry_run:
            _show_plan(context, operation, items, flags)
        elif not items:
            _show_nothing(as_json=flags.json)
        else:
            job_id = record_job(tenants.fleet, operation, items, options, flags.actor)
            execute(context, tenants, job_id, flags)


def _show_plan(context: typer.Context, operation: JobKind, items: Sequence[PlannedItem], flags: JobFlags) -> None:
    if flags.json:
        rest = [argument for argument in context.meta[ARGUMENTS] if argument != "--dry-run"]
        shown = [
            {
                "tenant": each.tenant.slug,
                "tenant_id": str(each.tenant.id),
                "summary": each.summary,
                "is_canary": number < flags.canary,
            }
            for number, each in enumerate(items)
        ]
        next_steps = [f"{context.command_path} {shlex.join(rest)}"] if items else []
        show_json({"kind": operation.name, "items": shown, "next_steps": next_steps})
    elif items:
        show_table(("tenant", "would do"), [(each.tenant.slug, each.summary) for each in items])
    else:
        _show_nothing(as_json=False)


def _show_nothing(*, as_json: bool) -> None:
    if as_json:
        show_json({"event": "ended", "job": None, "next_steps": []})
    else:
        say("Nothing to do.")


def execute(context: typer.Context, tenants: Tenancy, job_id: UUID, flags: JobFlags) -> None:
    """Execute a recorded job in processes of their own until it ends; raises as :func:`run_from_cli` does."""
    from tenancy.operations.jobs.store import JobStore  # noqa: PLC0415 (slow; loaded by now)

    store = JobStore(tenants.fleet.registry)
    job = store.get(job_id)
    options: FleetOptions = context.obj
    app = [] if options.app is None else ["--app", options.app]
    work = ["jobs", "work", str(job_id), "--drain", str(flags.drain_seconds), *(["--json"] if flags.json else [])]
    progress = JobProgress(job, as_json=flags.json)
    supervisor = _Supervisor(store, job, progress, flags.check)
    with (
        progress,
        interruptible() as interrupted,
        ExecutorProcesses([*app, *work], min(flags.processes, max(1, job.counts.unfinished))) as processes,
    ):
        while processes.are_alive:
            # The executors notice an outage too, and end if it lasts.
            with suppress(RegistryUnavailable):
                supervisor.step(processes, interrupted)
            if interrupted.is_set():
                processes.stop()
                time.sleep(_POLL)
            else:
                interrupted.wait(_POLL)
    job = supervisor.refresh(since=0.0)
    progress.end(job)
    _raise_unless_done(job, was_interrupted=interrupted.is_set())


class _Supervisor:
    """Watches a job whose items other processes execute, and runs the check after its canaries."""

    def __init__(self, store: JobStore, job: Job, progress: JobProgress, check: str | None) -> None:
        self._store = store
        self._job_id = job.id
        self._progress = progress
        self._check = check
        self._seen = {item.tenant_id for item in self._ended(0.0)}
        self._newest = 0.0

    def step(self, processes: ExecutorProcesses, interrupted: threading.Event) -> None:
        """Show what has changed, run the check if it is due, and replace processes that were killed."""
        job = self.refresh()
        if job.status != "running" or interrupted.is_set():
            processes.end_replacing()
            return
        if job.phase == "check" and self._check is not None:
            self._progress.message(f"Checking the canaries: {self._check}")
            code = run_check(self._check, interrupted)
            if code == 0:
                self._store.pass_check(self._job_id)
            elif code is not None:
                self._store.halt(self._job_id, f"The check after the canaries has exited with {code}.")
        processes.replace_killed()

    def refresh(self, since: float | None = None) -> Job:
        """Show what has changed, and return the job; ``since`` is the earliest end to look for."""
        job = self._store.get(self._job_id)
        if since is None:
            # An item may become visible later than others that ended after it.
            since = max(0.0, self._newest - _LATENESS)
        ended = [item for item in self._ended(since) if item.tenant_id not in self._seen]
        self._seen |= {item.tenant_id for item in ended}
        self._newest = max([self._newest, *(item.ended_at.timestamp() for item in ended if item.ended_at)])
        self._progress.show(job, ended)
        return job

    def _ended(self, since: float) -> Sequence[ItemReport]:
        return self._store.items(self._job_id, ("done", "failed", "skipped"), since=since)


def _raise_unless_done(job: Job, *, was_interrupted: bool) -> None:
    """Raise the error of a job that has not ended well."""
    if job.status == "done":
        return
    steps = shapes.next_steps(job)
    see = f"See: tenancy jobs show {job.id}"
    if job.status == "running":
        if was_interrupted:
            msg = f"Interrupted: {job.counts.unfinished} of {job.counts.total} tenants are left."
            raise CommandError(msg, remedy=f"Resume: {steps[1]}", code="interrupted")
        msg = f"The processes of job {job.id} have ended with errors. {job.counts.unfinished} tenants are left."
        raise CommandError(msg, remedy=f"Fix the cause, then resume: {steps[1]}", code="failed")
    if job.status == "cancelled":
        msg = f"The job was cancelled: {job.counts.done + job.counts.skipped} of {job.counts.total} tenants are done."
        raise CommandError(msg, remedy=see, code="partly_done")
    what = f"{job.counts.failed} of {job.counts.total} tenants have failed."
    if job.status == "halted":
        what = f"The job was halted. {job.reason}"
    raise CommandError(what, remedy=f"{see}. Fix the cause, then resume: {steps[1]}", code="partly_done")
