"""The commands of ``tenancy domains``: add, list, verify, remove."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Annotated, Final

import typer

from tenancy.cli import shapes
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Actor, Json, Output, Slug
from tenancy.cli.output import printable, quoted, say, show_json, show_table
from tenancy.cli.parsing import Command, Group
from tenancy.cli.shapes import moment

__all__ = ["COMMANDS", "domains"]

_Host = Annotated[str, typer.Argument(metavar="HOST", help="Host name, such as shop.example.com.")]


def add(context: typer.Context, slug: Slug, host: _Host, *, actor: Actor = None, json: Json = False) -> None:
    """Claim a host for a tenant, and show the token that its owner must publish."""
    with open_tenancy(context) as tenants:
        tenant = tenant_of(tenants, slug)
        domain = tenants.domains.add(tenant, host, actor=actor)
    if json:
        show_json(shapes.domain(domain))
        return
    say(f"Added {domain.host} to {quoted(tenant.slug)}. Its token is {domain.token}")
    if not domain.is_verified:
        slug_as_word = shlex.quote(printable(tenant.slug))
        say(f"Once its owner has published the token: tenancy domains verify {slug_as_word} {domain.host}")


def list_(
    context: typer.Context,
    slug: Annotated[
        str | None,
        typer.Argument(metavar="SLUG", help="Show only the tenant with this slug or id.", show_default=False),
    ] = None,
    *,
    output: Output = None,  # noqa: ARG001 (parsing.py writes the file)
    json: Json = False,
) -> None:
    """List the domains of a tenant or of all tenants, with their tokens."""
    with open_tenancy(context) as tenants:
        tenant = None if slug is None else tenant_of(tenants, slug)
        found = tenants.domains.list(tenant)
        owners = tenants.fleet.registry.get_many(list({each.tenant_id for each in found}))
    slugs = {tenant_id: owner.slug for tenant_id, owner in owners.items()}
    if json:
        show_json([shapes.domain(each) for each in found])
        return
    show_table(
        ("host", "tenant", "verified", "token"),
        [
            (each.host, slugs.get(each.tenant_id), each.verified_at and moment(each.verified_at), each.token)
            for each in found
        ],
    )


def verify(
    context: typer.Context,
    slug: Slug,
    host: _Host,
    *,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TEXT",
            help="Text found at the host; refused unless it is the token. Default: you vouch for the owner.",
            show_default=False,
        ),
    ] = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Let a host lead to its tenant, in every process within a second."""
    with open_tenancy(context) as tenants:
        tenant = tenant_of(tenants, slug)
        if token is None:
            token = tenants.domains.get(tenant, host).token
        domain = tenants.domains.verify(tenant, host, token, actor=actor)
    if json:
        show_json(shapes.domain(domain))
    else:
        say(f"{domain.host} leads to {quoted(tenant.slug)}.")


def remove(context: typer.Context, slug: Slug, host: _Host, *, actor: Actor = None, json: Json = False) -> None:
    """Remove a host from a tenant."""
    with open_tenancy(context) as tenants:
        tenant = tenant_of(tenants, slug)
        domain = tenants.domains.remove(tenant, host, actor=actor)
    if json:
        show_json(shapes.domain(domain))
    else:
        say(f"Removed {domain.host} from {quoted(tenant.slug)}.")


COMMANDS: Final[tuple[tuple[str, Callable[..., None], str], ...]] = (
    ("add", add, "tenancy domains add acme shop.acme.example"),
    ("list", list_, "tenancy domains list acme"),
    ("verify", verify, "tenancy domains verify acme shop.acme.example"),
    ("remove", remove, "tenancy domains remove acme shop.acme.example"),
)
"""Name, function and example of each command."""

domains = typer.Typer(cls=Group, add_completion=False, rich_markup_mode=None, no_args_is_help=True)
for _name, _function, _example in COMMANDS:
    domains.command(_name, cls=Command, epilog=f"Example: {_example}")(_function)
