"""The command rebuild."""

from __future__ import annotations

from typing import Annotated

import typer

from tenancy.cli import job_options as options
from tenancy.cli.errors import CommandError
from tenancy.cli.job_options import JobFlags, TenantFilters
from tenancy.cli.jobs import run_from_cli
from tenancy.cli.options import Actor, DryRun, Json

__all__ = ["rebuild"]


def rebuild(
    context: typer.Context,
    projection: Annotated[str, typer.Argument(metavar="PROJECTION", help="Name of the projection's class.")],
    slugs: options.Slugs = None,
    *,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Keep the replaced tables until --drop-old or the next rebuild.")
    ] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Drop the tables that --keep-old has kept, and rebuild nothing.")
    ] = False,
    status: options.Status = None,
    where: options.Where = None,
    limit: options.Limit = None,
    exclude: options.Except = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            metavar="NUMBER",
            min=1,
            help="Workers of the runners that serve the fleet. One tenant is rebuilt at a time for every eight.",
        ),
    ] = 4,
    canary: options.Canary = 0,
    check: options.Check = None,
    error_budget: options.ErrorBudget = "1%",
    lease_seconds: options.Lease = 20.0,
    drain_seconds: options.Drain = 30.0,
    dry_run: DryRun = False,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Rebuild the views of a projection from the first event.

    New tables are filled beside the serving ones, and replace them at the end.
    """
    from tenancy.operations.rebuilding import DropReplaced, Rebuild, processes_for  # noqa: PLC0415 (slow)

    if keep_old and drop_old:
        msg = "--keep-old and --drop-old cannot be combined."
        raise CommandError(msg, remedy="Rebuild with --keep-old first, and call it with --drop-old later.")
    run_from_cli(
        context,
        DropReplaced if drop_old else Rebuild,
        {"projection": projection}
        if drop_old
        else {"projection": projection, "keep_old": keep_old, "actor": actor, "workers": workers},
        TenantFilters(slugs, status, where, limit, exclude),
        JobFlags(
            processes_for(workers),
            canary,
            check,
            error_budget,
            lease_seconds,
            drain_seconds,
            dry_run,
            actor,
            json,
        ),
    )
