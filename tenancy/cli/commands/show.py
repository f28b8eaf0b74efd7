"""The read-only commands list, show and history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Json, Output, Slug
from tenancy.cli.output import json_of, shortened, show_json, show_json_list, show_long_table, show_pairs, show_table
from tenancy.cli.shapes import change, details, hook_run, moment, summary
from tenancy.cli.tenant_options import Limit, Status, Where, query_of

if TYPE_CHECKING:
    from tenancy import Tenant

__all__ = ["history", "list_", "show"]


def list_(
    context: typer.Context,
    *,
    status: Status = None,
    where: Where = None,
    created_after: Annotated[
        str | None,
        typer.Option(
            "--created-after",
            metavar="TIME",
            help="Only tenants created after this ISO time or date; UTC without an offset.",
            show_default=False,
        ),
    ] = None,
    order: Annotated[
        str,
        typer.Option("--order", metavar="ORDER", help="Order: slug, -slug, created or -created (newest first)."),
    ] = "slug",
    limit: Limit = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="TENANT",
            help="Continue after the last tenant of the page before: its slug, or its id with --order created.",
            show_default=False,
        ),
    ] = None,
    output: Output = None,  # noqa: ARG001 (parsing.py writes the file)
    json: Json = False,
) -> None:
    """List tenants, by default all, in order of their slugs."""
    with open_tenancy(context) as tenants:
        from tenancy.registry.queries import find_tenants  # noqa: PLC0415 (slow; loaded by now)

        query = query_of(status, where, created_after=created_after, order=order, limit=limit, after=after)
        found = find_tenants(tenants.fleet.registry, query)
        if json:
            show_json_list(map(summary, found))
            return
        show_long_table(("slug", "status", "where", "created", "name"), map(_row, found))


def _row(tenant: Tenant) -> Sequence[object]:
    return (tenant.slug, tenant.status, tenant.placement, moment(tenant.created_at), shortened(tenant.name))


def show(
    context: typer.Context,
    slug: Slug,
    *,
    output: Output = None,  # noqa: ARG001 (parsing.py writes the file)
    json: Json = False,
) -> None:
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
    output: Output = None,  # noqa: ARG001 (parsing.py writes the file)
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
