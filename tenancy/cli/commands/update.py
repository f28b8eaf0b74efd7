"""The commands that change a tenant's names or status, and keep its data."""

from __future__ import annotations

from typing import Annotated

import typer

from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Actor, Json, Name, Reason, Slug
from tenancy.cli.output import quoted, say, show_json, show_status
from tenancy.cli.shapes import details

__all__ = ["archive", "rename", "restore", "resume", "suspend", "undelete"]


def rename(
    context: typer.Context,
    slug: Slug,
    new_slug: Annotated[str | None, typer.Argument(metavar="NEW_SLUG", help="New slug.", show_default=False)] = None,
    *,
    name: Name = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Change a tenant's slug, name or both. The id and the tables stay the same."""
    if new_slug is None and name is None:
        msg = "Neither a new slug nor --name was given."
        raise CommandError(msg, remedy="Pass NEW_SLUG, --name or both.")
    with open_tenancy(context) as tenants:
        before = tenant_of(tenants, slug)
        tenant = tenants.rename(before, new_slug, name=name, actor=actor)
    if json:
        show_json(details(tenant))
        return
    if new_slug is not None:
        say(f"Renamed {quoted(before.slug)} to {quoted(tenant.slug)}.")
    if name is not None:
        say(f"Changed the name of {quoted(tenant.slug)} to {quoted(tenant.name)}.")


def suspend(
    context: typer.Context,
    slug: Slug,
    *,
    reason: Reason = None,
    reads: Annotated[
        bool | None, typer.Option("--reads/--no-reads", help="Allow or refuse reads.", show_default=False)
    ] = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Suspend a tenant: reads and writes are refused. With --reads, only writes are refused.

    It takes effect in every process within a second. On a suspended tenant, omitted options keep their values.
    """
    with open_tenancy(context) as tenants:
        tenant = tenants.suspend(tenant_of(tenants, slug), reason=reason, reads=reads, actor=actor)
    show_status(tenant, as_json=json)


def resume(context: typer.Context, slug: Slug, *, actor: Actor = None, json: Json = False) -> None:
    """Resume a suspended tenant."""
    with open_tenancy(context) as tenants:
        tenant = tenants.resume(tenant_of(tenants, slug), actor=actor)
    show_status(tenant, as_json=json)


def archive(
    context: typer.Context, slug: Slug, *, reason: Reason = None, actor: Actor = None, json: Json = False
) -> None:
    """Take a tenant offline and keep its data."""
    with open_tenancy(context) as tenants:
        tenant = tenants.archive(tenant_of(tenants, slug), reason=reason, actor=actor)
    show_status(tenant, as_json=json)


def restore(context: typer.Context, slug: Slug, *, actor: Actor = None, json: Json = False) -> None:
    """Restore an archived tenant to its previous status."""
    with open_tenancy(context) as tenants:
        tenant = tenants.restore(tenant_of(tenants, slug), actor=actor)
    show_status(tenant, as_json=json)


def undelete(context: typer.Context, slug: Slug, *, actor: Actor = None, json: Json = False) -> None:
    """Restore a deleted tenant to its previous status."""
    with open_tenancy(context) as tenants:
        tenant = tenants.undelete(tenant_of(tenants, slug), actor=actor)
    show_status(tenant, as_json=json)
