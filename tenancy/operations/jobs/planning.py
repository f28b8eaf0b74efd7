"""Plan a job: find the tenants that need work, and record them before the first change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tenancy.arguments import check_class, check_type
from tenancy.errors import InvalidArgument
from tenancy.model.metadata import check_json
from tenancy.model.tenant import Tenant, check_actor
from tenancy.operations.jobs.kind import JobKind, PlannedItem
from tenancy.operations.jobs.store import JobStore
from tenancy.registry.tables import check_texts

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.operations.jobs.options import JobOptions

__all__ = ["plan_job", "record_job"]


def plan_job(
    fleet: Fleet,
    kind: type[JobKind],
    parameters: Mapping[str, Any],
    tenants: Sequence[Tenant],
    limit: int | None = None,
) -> tuple[JobKind, Sequence[PlannedItem]]:
    """Return the operation, and the tenants among ``tenants`` that need work, at most ``limit``; changes nothing."""
    check_class("The kind of the job", kind, JobKind, "a class of JobKind")
    check_type("The name of the kind", getattr(kind, "name", None), str, 'a text: name = "certify"')
    check_json("parameters", parameters)
    operation = kind(fleet, parameters)
    return operation, operation.plan(tenants)[:limit]


def record_job(
    fleet: Fleet, operation: JobKind, items: Sequence[PlannedItem], options: JobOptions, actor: str | None
) -> UUID:
    """Record a planned job for executors to claim its items; return its id."""
    check_actor(actor)
    kind = type(operation)
    if "<locals>" in kind.__qualname__:
        msg = f"Other processes cannot import {kind.__name__}."
        raise InvalidArgument(msg, remedy="Define the class at the top level of a module.")
    check_texts(code_version=fleet.code_version)
    return JobStore(fleet.registry).create(operation, items, options, actor=actor, code_version=fleet.code_version)
