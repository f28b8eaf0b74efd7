"""JSON shapes. They are a public interface."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tenancy.telemetry.logs import masked

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from tenancy import Domain, PurgeCertificate, Tenant, Usage
    from tenancy.lifecycle.reaction_monitor import ReactionStatus
    from tenancy.lifecycle.reactions import ReactionReport
    from tenancy.operations.health import Health
    from tenancy.operations.jobs import ItemReport, Job
    from tenancy.registry.hook_runs import HookRun
    from tenancy.registry.reaction_store import ReactionFailure
    from tenancy.registry.registry import Change
    from tenancy.runner.failures import Failure
    from tenancy.runner.monitor import FollowerStatus

__all__ = [
    "certificate",
    "change",
    "details",
    "domain",
    "failure",
    "follower",
    "health",
    "hook_run",
    "item",
    "job",
    "moment",
    "next_steps",
    "reaction",
    "reaction_failure",
    "reaction_report",
    "summary",
    "usage",
]


def summary(tenant: Tenant) -> dict[str, Any]:
    """Return the shape of a tenant in a list."""
    return {
        "slug": tenant.slug,
        "id": str(tenant.id),
        "name": tenant.name,
        "status": str(tenant.status),
        "schema": tenant.placement.schema,
        "prefix": tenant.placement.table_prefix or None,
        "created_at": tenant.created_at.isoformat(),
        "metadata": dict(tenant.metadata),
    }


def details(tenant: Tenant) -> dict[str, Any]:
    """Return the full shape of a tenant."""
    return {
        **summary(tenant),
        "changed_at": tenant.changed_at.isoformat(),
        "reason": tenant.reason,
        "reads": tenant.reads,
        "adopted": tenant.adopted,
        "due_at": tenant.due_at and tenant.due_at.isoformat(),
    }


def change(entry: Change) -> dict[str, Any]:
    """Return the shape of an entry in a tenant's history."""
    return {**entry._asdict(), "at": entry.at.isoformat()}


def certificate(proof: PurgeCertificate) -> dict[str, Any]:
    """Return the shape of a purge certificate."""
    return _plain(proof)


def domain(claimed: Domain) -> dict[str, Any]:
    """Return the shape of a domain."""
    return _plain(claimed)


def health(answers: Health) -> dict[str, Any]:
    """Return the shape of the answers of databases."""
    databases = [
        {
            "name": each.name,
            "is_healthy": each.is_healthy,
            "seconds": each.seconds,
            "error": None if each.error is None else masked(str(each.error)),
        }
        for each in answers.databases
    ]
    return {"is_healthy": answers.is_healthy, "databases": databases}


def follower(status: FollowerStatus) -> dict[str, Any]:
    """Return the shape of a follower's status."""
    return {**_plain(status), "failure": None if status.failure is None else failure(status.failure)}


def failure(stored: Failure) -> dict[str, Any]:
    """Return the shape of a follower's failure."""
    return _plain(stored)


def reaction(status: ReactionStatus) -> dict[str, Any]:
    """Return the shape of a reaction's status."""
    return {**_plain(status), "failures": [reaction_failure(each) for each in status.failures]}


def reaction_failure(stored: ReactionFailure) -> dict[str, Any]:
    """Return the shape of a reaction's failure."""
    return _plain(stored)


def reaction_report(report: ReactionReport) -> dict[str, Any]:
    """Return the shape of one call of all reactions."""
    return {**_plain(report), "failures": [reaction_failure(each) for each in report.failures]}


def hook_run(run: HookRun) -> dict[str, Any]:
    """Return the shape of a hook's run for a tenant."""
    return _plain(run)


def usage(measured: Usage) -> dict[str, Any]:
    """Return the shape of a tenant's usage."""
    return _plain(measured)


def job(recorded: Job) -> dict[str, Any]:
    """Return the shape of a job, with the commands that may follow."""
    return {**_plain(recorded), "next_steps": next_steps(recorded)}


def next_steps(recorded: Job) -> list[str]:
    """Return the commands that apply to a job."""
    resume = f"tenancy jobs resume {recorded.id}"
    if recorded.has_check and recorded.phase != "rest":
        resume += " --check CMD"
    show, cancel = (f"tenancy jobs {verb} {recorded.id}" for verb in ("show", "cancel"))
    return {"running": [show, resume, cancel], "halted": [show, resume, cancel], "failed": [show, resume]}.get(
        recorded.status, []
    )


def item(recorded: ItemReport) -> dict[str, Any]:
    """Return the shape of a job's item."""
    return _plain(recorded)


def _plain(instance: DataclassInstance) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in asdict(instance).items()}


def _plain_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def moment(when: datetime) -> str:
    """Format a time for people."""
    return f"{when:%Y-%m-%d %H:%M}Z"
