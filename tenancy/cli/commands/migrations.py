"""The commands below migrations: the revisions of users' tables."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Json, Slug
from tenancy.cli.output import say, show_json, show_table
from tenancy.cli.parsing import Command, Group

if TYPE_CHECKING:
    from tenancy import Tenancy

__all__ = ["COMMANDS", "migrations"]

migrations = typer.Typer(cls=Group, rich_markup_mode=None)


def _directory(tenants: Tenancy) -> Path:
    directory = tenants.settings.migrations
    if directory is None:
        msg = "The fleet has no directory for migrations."
        remedy = 'Name one: Tenancy(migrations="migrations"), or TENANCY_MIGRATIONS=migrations'
        raise CommandError(msg, remedy=remedy)
    return directory


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def init(context: typer.Context, *, json: Json = False) -> None:
    """Create the directory of the migrations."""
    from tenancy.migrations.scripts import create_directory  # noqa: PLC0415 (slow: loads SQLAlchemy)

    with open_tenancy(context) as tenants:
        files = [_shown(path) for path in create_directory(_directory(tenants))]
    if json:
        show_json({"files": files})
        return
    for file in files:
        say(f"Created {file}.")


def revision(
    context: typer.Context,
    *,
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Subject of the revision.")],
    autogenerate: Annotated[
        bool,
        typer.Option(
            "--autogenerate", help="Write the changes from the tables of the last revision to those of the code."
        ),
    ] = False,
    rev_id: Annotated[
        str | None,
        typer.Option("--rev-id", metavar="ID", help="Id of the revision. Default: random.", show_default=False),
    ] = None,
    head: Annotated[
        str, typer.Option("--head", metavar="REVISION", help="Revision or branch to build on; base starts a branch.")
    ] = "head",
    branch_label: Annotated[
        str | None, typer.Option("--branch-label", metavar="NAME", help="Name of a new branch.", show_default=False)
    ] = None,
    depends_on: Annotated[
        str | None,
        typer.Option(
            "--depends-on", metavar="REVISION", help="Revision of another branch to run first.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a revision, empty or with what has changed."""
    from tenancy.operations.migrations import revisions  # noqa: PLC0415 (slow: loads SQLAlchemy)

    options: dict[str, Any] = {
        "rev_id": rev_id,
        "head": head,
        "branch_label": branch_label,
        "depends_on": depends_on,
    }
    with open_tenancy(context) as tenants:
        path = _shown(revisions.write(tenants.fleet, message, autogenerate=autogenerate, **options))
    if json:
        show_json({"file": path})
    else:
        say(f"Created {path}.")


def heads(context: typer.Context, *, json: Json = False) -> None:
    """Show the newest revision of each branch."""
    with open_tenancy(context) as tenants:
        _directory(tenants)
        directory = tenants.fleet.migrator.directory
        found = [
            {"revision": each, "message": directory.message(each), "file": _shown(directory.file(each))}
            for each in directory.heads()
        ]
    if json:
        show_json({"heads": found})
    else:
        show_table(("revision", "message", "file"), [tuple(each.values()) for each in found])


def sql(
    context: typer.Context,
    slug: Slug,
    *,
    to: Annotated[str, typer.Option("--to", metavar="REVISION", help="Revision to upgrade to.")] = "heads",
    json: Json = False,
) -> None:
    """Write SQL that upgrades a tenant, and run nothing."""
    output = StringIO()
    with open_tenancy(context) as tenants:
        _directory(tenants)
        tenants.fleet.migrator.write_sql(tenant_of(tenants, slug), output, to)
    if json:
        show_json({"sql": output.getvalue()})
    else:
        say(output.getvalue().rstrip())


COMMANDS: Final[tuple[tuple[str, Callable[..., None], str], ...]] = (
    ("init", init, "tenancy migrations init"),
    ("revision", revision, "tenancy migrations revision -m 'add notes' --autogenerate"),
    ("heads", heads, "tenancy migrations heads"),
    ("sql", sql, "tenancy migrations sql acme"),
)
"""Name, function and example of each command."""

for _name, _function, _example in COMMANDS:
    migrations.command(_name, cls=Command, epilog=f"Example: {_example}")(_function)
