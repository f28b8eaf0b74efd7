"""The command that shows what tenants have recorded."""

from __future__ import annotations

import typer

from tenancy.cli.job_options import Except, Limit, Slugs, Status, TenantFilters, Where
from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Json, Output
from tenancy.cli.output import show_json, show_table
from tenancy.cli.shapes import moment
from tenancy.cli.shapes import usage as shape

__all__ = ["usage"]


def usage(
    context: typer.Context,
    slugs: Slugs = None,
    *,
    status: Status = None,
    where: Where = None,
    limit: Limit = None,
    exclude: Except = None,
    output: Output = None,  # noqa: ARG001 (parsing.py writes the file)
    json: Json = False,
) -> None:
    """Show how much tenants have recorded, and when."""
    with open_tenancy(context) as tenants:
        found = tenants.usages(TenantFilters(slugs, status, where, limit, exclude).selection())
    if json:
        show_json([shape(each) for each in found])
        return
    show_table(
        ("slug", "events", "bytes", "first activity", "last activity", "per second"),
        [
            (
                each.tenant,
                each.events,
                each.bytes,
                each.first_active_at and moment(each.first_active_at),
                each.last_active_at and moment(each.last_active_at),
                "" if each.rate is None else f"{each.rate:.1f}",
            )
            for each in found
        ],
    )
