"""Options of the commands that run a job: which tenants, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple
from uuid import UUID

import typer

from tenancy.cli.completion import complete_slug
from tenancy.cli.options import seconds
from tenancy.cli.tenant_options import Limit, Status, Where, conditions

if TYPE_CHECKING:
    from tenancy.operations.jobs import TenantSelection

__all__ = [
    "Canary",
    "Check",
    "Drain",
    "ErrorBudget",
    "Except",
    "JobFlags",
    "JobID",
    "Lease",
    "Limit",
    "Processes",
    "Slugs",
    "Status",
    "TenantFilters",
    "Where",
]

Slugs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SLUG]...",
        help="Slugs or ids of the tenants. Default: all.",
        show_default=False,
        autocompletion=complete_slug,
    ),
]
Except = Annotated[
    list[str] | None,
    typer.Option(
        "--except", metavar="SLUG", help="Leave a tenant out. Repeat it for several tenants.", show_default=False
    ),
]
Processes = Annotated[int, typer.Option("--processes", metavar="NUMBER", min=1, help="Number of processes to start.")]
Canary = Annotated[
    int,
    typer.Option(
        "--canary", metavar="NUMBER", min=0, help="Tenants to run first. The others start if all of these end well."
    ),
]
Check = Annotated[
    str | None,
    typer.Option(
        "--check",
        metavar="CMD",
        help="Shell command to run after the canaries. It must exit with 0.",
        show_default=False,
    ),
]
ErrorBudget = Annotated[
    str,
    typer.Option(
        "--error-budget",
        metavar="BUDGET",
        help="Number or percentage of tenants that may fail, rounded up. One more halts the job.",
    ),
]
Drain = Annotated[
    float,
    typer.Option(
        "--drain",
        metavar="SECONDS",
        min=0.0,
        callback=seconds,
        help="Seconds to wait for tenants in progress on Ctrl-C or SIGTERM.",
    ),
]
Lease = Annotated[
    float,
    typer.Option(
        "--lease",
        metavar="SECONDS",
        min=1.0,
        callback=seconds,
        help="Seconds of silence after which another process takes over a tenant.",
    ),
]
JobID = Annotated[UUID, typer.Argument(metavar="JOB", help="Id of the job: see tenancy jobs list.")]


class TenantFilters(NamedTuple):
    """The options that choose tenants."""

    slugs: Sequence[str] | None = None
    status: str | None = None
    where: Sequence[str] | None = None
    limit: int | None = None
    exclude: Sequence[str] | None = None

    def selection(self) -> TenantSelection:
        """Return the selection that the options describe; raises CommandError and InvalidArgument."""
        from tenancy.operations.jobs import TenantSelection  # noqa: PLC0415 (slow: loads SQLAlchemy)

        return TenantSelection(
            slugs=self.slugs or (),
            status=self.status,
            where=conditions(self.where),
            limit=self.limit,
            exclude=self.exclude or (),
        )


class JobFlags(NamedTuple):
    """The options that say how a job runs."""

    processes: int
    canary: int
    check: str | None
    error_budget: str
    lease_seconds: float
    drain_seconds: float
    dry_run: bool
    actor: str | None
    json: bool
