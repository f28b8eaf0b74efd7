"""The verbs that put programs into a tenant's tables: env, exec."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tenancy.cli.failures import CommandError
from tenancy.cli.fleet import tenant_of, the_fleet
from tenancy.cli.options import Json, Slug
from tenancy.cli.output import say, show_json

if TYPE_CHECKING:
    from tenancy import Tenancy

__all__ = ["Format", "env", "exec_"]


class Format(StrEnum):
    """How variables are written."""

    SH = "sh"
    DOTENV = "dotenv"
    JSON = "json"


def env(
    context: typer.Context,
    slug: Slug,
    *,
    form: Annotated[Format, typer.Option("--format", help="For a shell, for a file .env, or JSON.")] = Format.SH,
    show_secrets: Annotated[
        bool,
        typer.Option(
            "--show-secrets",
            help="Write the URL of the database, with its password, instead of a reference to its variable.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Show the variables that lead to a tenant's tables."""
    with the_fleet(context) as tenants:
        variables = tenants.env(tenant_of(tenants, slug))
        references = {} if show_secrets else _references(tenants)
    form = Format.JSON if json else form
    if form is Format.JSON:
        show_json(
            {key: f"${{{references[value]}}}" if value in references else value for key, value in variables.items()}
        )
        return
    for key, value in variables.items():
        if form is Format.SH:
            reference = references.get(value)
            # An expansion that fails when it is not set, and does not end up with a database of something else.
            text = shlex.quote(value) if reference is None else f'"${{{reference}:?is not set}}"'
            say(f"export {key}={text}")
        elif value not in references:
            say(f"{key}={_quoted(value)}")
        elif key != references[value]:  # one that referred to itself would be an endless loop to some readers
            say(f"{key}=${{{references[value]}}}")


def _references(tenants: Tenancy) -> Mapping[str, str]:
    """Return the variables to refer to, by their values that may hold a password."""
    settings = tenants.settings
    return {
        settings.control_url.render_as_string(hide_password=False): "TENANCY_CONTROL_URL",
        settings.url.render_as_string(hide_password=False): "SQLALCHEMY_URL",
    }


def _quoted(value: str) -> str:
    if not set(value) & {"'", "\\", "\n", "\r"}:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def exec_(
    context: typer.Context,
    slug: Slug,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="The program and its arguments, after --.")
    ],
    *,
    json: Json = False,  # noqa: ARG001 (for the errors; what the program writes is its own)
) -> None:
    """Run a program that uses a tenant's tables. It takes the place of this process."""
    with the_fleet(context) as tenants:
        tenant = tenant_of(tenants, slug)
        with tenants.scope(tenant):  # refuses at once when the program could not even read
            variables = tenants.env(tenant)
    _become(command, variables)


def _become(command: list[str], variables: Mapping[str, str]) -> NoReturn:
    # Python ignores it, and a program that inherits that would not end when nobody reads its output.
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.stdout.flush()
    try:
        os.execvpe(command[0], command, {**os.environ, **variables})  # noqa: S606 (what the user asked for)
    except OSError as error:
        signal.signal(signal.SIGPIPE, before)
        msg = f"{command[0]!r} cannot be run: {error.strerror}."
        raise CommandError(msg, remedy="Give the program and its arguments after --.", code="not_executable") from error
