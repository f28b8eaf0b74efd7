"""The command adopt."""

from __future__ import annotations

from typing import Annotated

import typer

from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Actor, Json, Metadata, Name, NewSlug, metadata_of
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
            "--schema", metavar="TEMPLATE", help="Where the tables are; may hold {application}.", show_default=False
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(
            "--prefix", metavar="TEMPLATE", help="How their names begin; may hold {application}.", show_default=False
        ),
    ] = "",
    name: Name = None,
    metadata: Metadata = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Register tables that exist as a tenant. Nothing is copied or changed."""
    kept = metadata_of(metadata)
    with open_tenancy(context) as tenants:
        tenant = tenants.adopt(slug, schema=schema, table_prefix=prefix, name=name, metadata=kept, actor=actor)
    if json:
        show_json(details(tenant))
    else:
        say(f"Adopted {quoted(tenant.slug)}; its tables stay where they are.")
