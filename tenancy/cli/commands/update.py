"""The verbs that change what a tenant is called and whether it serves, and take nothing away."""

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
    new_slug: Annotated[
        str | None, typer.Argument(metavar="NEW_SLUG", help="The slug from now on.", show_default=False)
    ] = None,
    *,
    name: Name = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Give a tenant another slug, another name or both. Its id and its tables keep theirs."""
    if new_slug is None and name is None:
        msg = "Neither a new slug nor --name was given."
        raise CommandError(msg)
    with open_tenancy(context) as tenants:
        before = tenant_of(tenants, slug)
        tenant = tenants.rename(before, new_slug, name=name, actor=actor)
    if json:
        show_json(details(tenant))
        return
    if new_slug is not None:
        say(f"Renamed {quoted(before.slug)} to {quoted(tenant.slug)}.")
    if name is not None:
        say(f"The name of {quoted(tenant.slug)} is {quoted(tenant.name)}.")


def suspend(
    context: typer.Context,
    slug: Slug,
    *,
    reason: Reason = None,
    reads: Annotated[
        bool | None, typer.Option("--reads/--no-reads", help="Whether it can be read.", show_default=False)
    ] = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Let a tenant record nothing, and read nothing without --reads. In force everywhere within a second.

    Of one that is suspended already, what is not given stays as it is.
    """
    with open_tenancy(context) as tenants:
        tenant = tenants.suspend(tenant_of(tenants, slug), reason=reason, reads=reads, actor=actor)
    show_status(tenant, as_json=json)


def resume(context: typer.Context, slug: Slug, *, actor: Actor = None, json: Json = False) -> None:
    """Let a suspended tenant serve again."""
    with open_tenancy(context) as tenants:
        tenant = tenants.resume(tenant_of(tenants, slug), actor=actor)
    show_status(tenant, as_json=json)


def archive(
    context: typer.Context, slug: Slug, *, reason: Reason = None, actor: Actor = None, json: Json = False
) -> None:
    """Take a tenant off-line and keep its data."""
    with open_tenancy(context) as tenants:
        tenant = tenants.archive(tenant_of(tenants, slug), reason=reason, actor=actor)
    show_status(tenant, as_json=json)


def restore(context: typer.Context, slug: Slug, *, actor: Actor = None, json: Json = False) -> None:
    """Give an archived tenant the status that it had before."""
    with open_tenancy(context) as tenants:
        tenant = tenants.restore(tenant_of(tenants, slug), actor=actor)
    show_status(tenant, as_json=json)


def undelete(context: typer.Context, slug: Slug, *, actor: Actor = None, json: Json = False) -> None:
    """Give a deleted tenant the status that it had before."""
    with open_tenancy(context) as tenants:
        tenant = tenants.undelete(tenant_of(tenants, slug), actor=actor)
    show_status(tenant, as_json=json)
