"""Rebuilds a view over all tenants in a separate process, to be killed. It resumes the job that another one began.

It prints a line before it starts. It ends with 0 when the view is replaced.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tenancy.operations.jobs import JobOptions, JobStatus
from tests.samples.training_school.totals import CountAll
from tests.support.fleets import fleet_across


def start(url: str) -> subprocess.Popen[str]:
    """Start the process, and wait until it begins to work."""
    command = [sys.executable, "-m", "tests.support.across_process", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def main(url: str) -> None:
    """Rebuild the view, or resume a rebuild."""
    with fleet_across(url) as tenants:
        running = [job for job in tenants.jobs.list() if job.status is JobStatus.RUNNING]
        print("ready", flush=True)  # noqa: T201 (the parent process reads it)
        if running:
            report = tenants.jobs.resume(running[0].id)
        else:
            report = tenants.rebuild(CountAll, options=JobOptions(lease_seconds=0.5))
        # A process that was killed before it had created the new tables leaves a job that fails.
        sys.exit(0 if report.is_success else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
