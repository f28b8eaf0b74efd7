"""Arguments and options that several commands share."""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from typing import Annotated, Any, Final

import typer

from tenancy.cli.completion import complete_slug
from tenancy.cli.errors import CommandError
from tenancy.errors import InvalidArgument, TenancyError
from tenancy.model.metadata import check_json
from tenancy.model.tenant import check_actor

__all__ = [
    "Actor",
    "DryRun",
    "Json",
    "Metadata",
    "Name",
    "NewSlug",
    "Output",
    "Reason",
    "Slug",
    "Yes",
    "age",
    "json_object",
    "seconds",
]

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
    """Validate a number of seconds to wait."""
    if not 0 <= value <= _MAX_SECONDS:  # rejects "nan" too
        raise typer.BadParameter(f"{value} is not a number of seconds up to {_MAX_SECONDS}.")
    return value


def age(text: str) -> timedelta:
    """Parse an age, such as ``30d`` or ``12h``."""
    found = re.fullmatch(r"(\d{1,6})([dhm])", text, re.ASCII)
    if found is None:
        msg = f"{text!r} is not an age."
        raise CommandError(msg, remedy="Pass a number of days, hours or minutes: 30d, 12h or 90m.")
    unit = {"d": "days", "h": "hours", "m": "minutes"}[found[2]]
    return timedelta(**{unit: int(found[1])})


def json_object(option: str, text: str | None) -> dict[str, Any]:
    """Parse the JSON object of an option, such as ``--metadata``."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        msg = f"{option} is not a valid JSON object."
        raise CommandError(msg, remedy=f"""Pass an object: {option} '{{"plan": "gold"}}'""")
    try:
        check_json(option.removeprefix("--"), value)
    except InvalidArgument as error:
        raise CommandError(error.message, remedy=error.remedy) from None
    return value


Slug = Annotated[
    str,
    typer.Argument(metavar="SLUG", help="Slug or id of the tenant.", show_default=False, autocompletion=complete_slug),
]
NewSlug = Annotated[str, typer.Argument(metavar="SLUG", help="Slug of the new tenant.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, and errors as JSON to standard error.")]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="Write the output to a file, or to standard output (-).",
        show_default=False,
    ),
]
Actor = Annotated[
    str | None,
    typer.Option(
        "--actor",
        metavar="ID",
        help="Opaque id of the acting user, for the history. Do not pass a name: events are never erased. "
        "Default: uid: and the system user id.",
        callback=_actor,
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation prompt.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="TEXT", help="Display name of the tenant; any text.", show_default=False),
]
Metadata = Annotated[
    str | None,
    typer.Option("--metadata", metavar="JSON", help="JSON object to store with the tenant.", show_default=False),
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Reason, shown in errors and in the history.", show_default=False),
]
