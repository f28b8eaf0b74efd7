"""Jobs: recorded, resumable operations over many tenants."""

from tenancy.operations.jobs.job import Counts, ItemReport, ItemStatus, Job, JobPhase, JobReport, JobStatus
from tenancy.operations.jobs.jobs import Jobs, run_job
from tenancy.operations.jobs.kind import ItemSkipped, JobItem, JobKind, PlannedItem
from tenancy.operations.jobs.options import JobOptions
from tenancy.operations.jobs.selection import TenantSelection

__all__ = [
    "Counts",
    "ItemReport",
    "ItemSkipped",
    "ItemStatus",
    "Job",
    "JobItem",
    "JobKind",
    "JobOptions",
    "JobPhase",
    "JobReport",
    "JobStatus",
    "Jobs",
    "PlannedItem",
    "TenantSelection",
    "run_job",
]
