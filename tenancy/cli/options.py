"""Arguments and options that several verbs have."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any, Final, cast

import typer

from tenancy.cli.errors import CommandError
from tenancy.errors import TenancyError
from tenancy.model.tenant import check_actor

__all__ = ["Actor", "DryRun", "Json", "Metadata", "Name", "NewSlug", "Reason", "Slug", "Yes", "metadata_of", "seconds"]

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


def metadata_of(text: str | None) -> dict[str, Any]:
    """Return the object that ``--metadata`` holds."""
    if text is None:
        return {}
    from tenancy.registry.tables import check_metadata  # noqa: PLC0415 (slow; it is loaded next in any case)

    try:
        value = json.loads(text)
        check_metadata(value)
    except (ValueError, RecursionError) as error:
        msg = "--metadata is not an object of valid JSON. It cannot contain NaN, Infinity, NUL or lone surrogates."
        raise CommandError(msg, remedy="""Write it so: --metadata '{"plan": "gold"}'""") from error
    return cast("dict[str, Any]", value)


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
