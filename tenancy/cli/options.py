"""Arguments and options that several verbs have."""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from tenancy.errors import TenancyError
from tenancy.model.tenant import check_actor

__all__ = ["Actor", "DryRun", "Json", "Metadata", "Name", "NewSlug", "Reason", "Slug", "Yes", "seconds"]

_MAX_SECONDS: Final = 1_000_000


def _actor(value: str | None) -> str:
    if value is None:
        return f"uid:{os.getuid()}"
    try:
        check_actor(value)
    except TenancyError as error:
        raise typer.BadParameter(f"{error.message} {error.remedy}") from None
    return value


def seconds(value: float) -> float:
    """Return a number of seconds that can be waited for."""
    if not 0 <= value <= _MAX_SECONDS:  # refuses "nan" too
        raise typer.BadParameter(f"{value} is not a number of seconds up to {_MAX_SECONDS}.")
    return value


Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The tenant's slug or id.", show_default=False)]
NewSlug = Annotated[str, typer.Argument(metavar="SLUG", help="The slug of the tenant.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, and errors as JSON to the standard error.")]
Actor = Annotated[
    str | None,
    typer.Option(
        "--actor",
        metavar="ID",
        help="The id of who does it, for the history: not a name, which could never be erased. "
        "By default uid: and the number of the user of the operating system.",
        callback=_actor,
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for the slug to be typed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="TEXT", help="What people call the tenant; any text.", show_default=False),
]
Metadata = Annotated[
    str | None,
    typer.Option("--metadata", metavar="JSON", help="An object of yours to keep with the tenant.", show_default=False),
]
Reason = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", help="Why, for whoever is refused and for the history.", show_default=False
    ),
]
