"""The command migrate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenancy.cli import job_options as options
from tenancy.cli.errors import FAILED
from tenancy.cli.job_options import JobFlags, TenantFilters
from tenancy.cli.jobs import run_from_cli
from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Actor, DryRun, Json, seconds
from tenancy.cli.output import say, show_json, show_table

if TYPE_CHECKING:
    from tenancy.model.versions import Versions
    from tenancy.operations.migrations import MigrationStatus

__all__ = ["migrate"]


def migrate(
    context: typer.Context,
    slugs: options.Slugs = None,
    *,
    show_status: Annotated[
        bool,
        typer.Option("--status", help="Show versions and tenants that are behind. Exits with 1 if there are any."),
    ] = False,
    where: options.Where = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", metavar="NUMBER", min=1, help="Maximum number of tenants to migrate.", show_default=False
        ),
    ] = None,
    exclude: options.Except = None,
    processes: options.Processes = 2,
    canary: options.Canary = 0,
    check: options.Check = None,
    error_budget: options.ErrorBudget = "1%",
    lock_timeout: Annotated[
        float,
        typer.Option(
            "--lock-timeout",
            metavar="SECONDS",
            min=0.001,
            callback=seconds,
            help="Seconds that an attempt waits for a lock, and lets writers wait behind it.",
        ),
    ] = 0.5,
    to: Annotated[
        str,
        typer.Option("--to", metavar="REVISION", help="Migrate your own tables up or down to this revision."),
    ] = "heads",
    lease_seconds: options.Lease = 20.0,
    drain_seconds: options.Drain = 30.0,
    dry_run: DryRun = False,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Migrate the registry and tenants that are behind.

    Tenants that are current are not touched. A second call continues after a failure.
    """
    from tenancy.operations.migrations import Migrate, prepare, status_of  # noqa: PLC0415 (slow: loads SQLAlchemy)

    if show_status:
        with open_tenancy(context) as tenants:
            status = status_of(tenants.fleet)
        _show(status, as_json=json)
        if status.behind:
            raise typer.Exit(FAILED)
        return
    run_from_cli(
        context,
        Migrate,
        {"lock_timeout": lock_timeout, "actor": actor, "to": to},
        TenantFilters(slugs, None, where, batch, exclude),
        JobFlags(processes, canary, check, error_budget, lease_seconds, drain_seconds, dry_run, actor, json),
        prepare=prepare,
    )


def _show(status: MigrationStatus, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "head": _shape(status.head),
                "versions": [{**_shape(each.versions), "tenants": each.tenants} for each in status.counts],
                "behind": [
                    {"tenant": each.tenant.slug, "tenant_id": str(each.tenant.id), "summary": each.summary}
                    for each in status.behind
                ],
                "next_steps": ["tenancy migrate"] if status.behind else [],
            }
        )
        return
    rows = [(each.tenants, *_texts(each.versions)) for each in status.counts]
    show_table(("tenants", "tables", "migrations", "views"), [*rows, ("code", *_texts(status.head))])
    if status.behind:
        say()
        show_table(("behind", "would do"), [(each.tenant.slug, each.summary) for each in status.behind])


def _shape(versions: Versions) -> dict[str, Any]:
    return {"tables": versions.tables, "migrations": list(versions.migrations), "views": dict(versions.views)}


def _texts(versions: Versions) -> tuple[object, ...]:
    views = ", ".join(f"{name} {version}" for name, version in sorted(versions.views.items()))
    return versions.tables, ", ".join(versions.migrations), views
