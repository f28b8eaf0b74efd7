"""Jobs: recorded, resumable operations over many tenants."""

from tenancy.operations.jobs.kind import ItemSkipped, JobItem, JobKind, PlannedItem

__all__ = ["ItemSkipped", "JobItem", "JobKind", "PlannedItem"]
