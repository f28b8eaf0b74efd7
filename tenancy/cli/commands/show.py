"""The read-only commands list, show and history."""

from __future__ import annotations

from typing import Annotated

import typer

from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Json, Slug
from tenancy.cli.output import json_of, shortened, show_json, show_pairs, show_table
from tenancy.cli.shapes import change, details, hook_run, moment, summary

__all__ = ["history", "list_", "show"]


def list_(
    context: typer.Context,
    *,
    status: Annotated[
        str | None,
        typer.Option("--status", metavar="STATUS", help="Show only tenants with this status.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """List tenants in order of their slugs."""
    with open_tenancy(context) as tenants:
        from tenancy import TenantStatus  # noqa: PLC0415 (slow; loaded by now)

        if status is not None and status not in set(TenantStatus):
            msg = f"Status {status!r} does not exist."
            raise CommandError(msg, remedy=f"Choose one of: {', '.join(TenantStatus)}")
        found = tenants.list(status)
    if json:
        show_json([summary(tenant) for tenant in found])
        return
    show_table(
        ("slug", "status", "where", "created", "name"),
        [
            (tenant.slug, tenant.status, tenant.placement, moment(tenant.created_at), shortened(tenant.name))
            for tenant in found
        ],
    )


def show(context: typer.Context, slug: Slug, *, json: Json = False) -> None:
    """Show all details of a tenant."""
    with open_tenancy(context) as tenants:
        tenant = tenant_of(tenants, slug)
        hooks = tenants.fleet.hooks.runs([tenant])
    record = {**details(tenant), "hooks": [hook_run(each) for each in hooks]}
    if json:
        show_json(record)
    else:
        record["hooks"] = "; ".join(map(str, hooks))
        show_pairs((name, _readable(value)) for name, value in record.items())


def _readable(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json_of(value) if value and isinstance(value, dict) else value


def history(
    context: typer.Context,
    slug: Annotated[
        str, typer.Argument(metavar="SLUG", help="Slug or id of the tenant. A purged tenant has only its id.")
    ],
    *,
    json: Json = False,
) -> None:
    """Show the changes to a tenant, with time and actor."""
    with open_tenancy(context) as tenants:
        changes = tenants.history(slug)
    if json:
        show_json([change(each) for each in changes])
        return
    show_table(
        ("when", "action", "status", "actor", "remark"),
        [(moment(each.at), each.action, each.status, each.actor, each.remark) for each in changes],
    )
