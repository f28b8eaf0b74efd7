"""Arguments and options that several verbs have."""

from __future__ import annotations

import os
import re
from typing import Annotated, Final

import typer

__all__ = ["Actor", "DryRun", "Json", "Metadata", "Name", "Reason", "Slug", "Yes"]

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#+-]{0,99}")


def _actor(value: str | None) -> str:
    if value is None:
        return f"uid:{os.getuid()}"
    if not _ID.fullmatch(value):
        msg = (
            "The history is never erased, so it takes an id and no name: up to 100 letters a-z, digits and ._:/#+- "
            "without a space or an @."
        )
        raise typer.BadParameter(msg)
    return value


Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The tenant's slug.", show_default=False)]
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
