"""The commands that change a tenant's names, metadata or status, and keep its data."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Actor, Json, Metadata, Name, Reason, Slug, json_object
from tenancy.cli.output import json_of, quoted, say, show_json, show_status
from tenancy.cli.shapes import details

__all__ = ["archive", "rename", "restore", "resume", "suspend", "undelete", "update"]


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


def update(
    context: typer.Context,
    slug: Slug,
    *,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=TEXT",
            help="Set a key of the metadata to a text, or with KEY:=JSON to a value of another type. Repeat it for "
            "several keys.",
            show_default=False,
        ),
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(
            "--unset",
            metavar="KEY",
            help="Remove a key of the metadata. Repeat it for several keys.",
            show_default=False,
        ),
    ] = None,
    metadata: Metadata = None,
    name: Name = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Change a tenant's metadata, name or both. With --metadata, all of the metadata is replaced.

    It takes effect in every process within a second. The history records the keys, not the values.
    """
    if not (set_ or unset or metadata is not None or name is not None):
        msg = "No change was given."
        raise CommandError(msg, remedy="Pass --set, --unset, --metadata or --name.")
    if metadata is not None and (set_ or unset):
        msg = "--metadata replaces all of the metadata, so --set and --unset have no effect."
        raise CommandError(msg, remedy="Pass either --metadata, or --set and --unset.")
    changes = _values_of(set_ or ()) if metadata is None else json_object("--metadata", metadata)
    with open_tenancy(context) as tenants:
        tenant = tenants.update(
            tenant_of(tenants, slug),
            name=name,
            metadata=changes,
            unset=unset or (),
            replace=metadata is not None,
            actor=actor,
        )
    if json:
        show_json(details(tenant))
        return
    say(f"{quoted(tenant.slug)} has the metadata {json_of(dict(tenant.metadata))}.")


def _values_of(options: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``--set``, by key."""
    values: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not (equals and key.removesuffix(":")):
            msg = f"--set {text!r} is not of the form KEY=TEXT or KEY:=JSON."
            raise CommandError(msg, remedy="Name a key of the metadata and its value: --set plan=pro, --set seats:=5")
        if not key.endswith(":"):
            values[key] = value
            continue
        try:
            values[key[:-1]] = json_module.loads(value)
        except (ValueError, RecursionError) as error:
            msg = f"The value of --set {key[:-1]!r} is not JSON."
            raise CommandError(msg, remedy=f"For a text, use one sign only: --set {key[:-1]}=TEXT") from error
    return values


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
