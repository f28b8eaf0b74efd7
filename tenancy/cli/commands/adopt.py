"""The command adopt."""

from __future__ import annotations

from typing import Annotated

import typer

from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Actor, Json, Metadata, Name, NewSlug, json_object
from tenancy.cli.output import quoted, say, show_json
from tenancy.cli.shapes import details

__all__ = ["adopt"]


def adopt(
    context: typer.Context,
    slug: NewSlug,
    *,
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema", metavar="TEMPLATE", help="Schema of the tables; may contain {application}.", show_default=False
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(
            "--prefix",
            metavar="TEMPLATE",
            help="Prefix of the table names; may contain {application}.",
            show_default=False,
        ),
    ] = "",
    name: Name = None,
    metadata: Metadata = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Register existing tables as a tenant. Nothing is copied or changed."""
    parsed = json_object("--metadata", metadata)
    with open_tenancy(context) as tenants:
        tenant = tenants.adopt(slug, schema=schema, table_prefix=prefix, name=name, metadata=parsed, actor=actor)
    if json:
        show_json(details(tenant))
    else:
        say(f"Adopted {quoted(tenant.slug)}. Its tables stay in place.")
