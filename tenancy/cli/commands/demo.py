"""The verb demo."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from tenancy.cli.errors import CommandError
from tenancy.cli.options import Json
from tenancy.cli.output import show_json

__all__ = ["demo"]


def demo(
    *,
    database: Annotated[
        str, typer.Option("--database", metavar="DATABASE", help="embedded, sqlite, compose or a URL.")
    ] = "embedded",
    json: Json = False,
) -> None:
    """See it work, in a database of the demo's own."""
    try:
        from tenancy.demo.__main__ import main  # noqa: PLC0415 (slow, and not everybody has what it needs)
    except ModuleNotFoundError as error:
        msg = f"The demo needs {error.name!r}."
        raise CommandError(msg, remedy="Install it: pip install 'eventsourcing-sqlalchemy[cli]'") from error
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        code = main(["--database", database])
    if json:
        show_json({"passed": code == 0})
    raise typer.Exit(code)
