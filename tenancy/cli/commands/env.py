"""The command env."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Json, Output, Slug
from tenancy.cli.output import say, show_json

if TYPE_CHECKING:
    from tenancy import Tenancy

__all__ = ["Format", "env"]

# Variables from the code are assumed to be secret, except for known settings of the library and of this package.
_WITHOUT_SECRETS: Final = re.compile(
    r"(?!.*(URL|KEY|PASSWORD|SECRET|TOKEN))(.*_)?"
    r"(\w+_TOPIC|(SQLALCHEMY|TENANCY)_\w+|AGGREGATE_CACHE_\w+|DEEPCOPY_FROM_AGGREGATE_CACHE"
    r"|PERSISTENCE_MODULE|CREATE_TABLE|ORIGINATOR_ID_TYPE|IS_SNAPSHOTTING_ENABLED)"
)


class Format(StrEnum):
    """The output format of variables."""

    SH = "sh"
    DOTENV = "dotenv"
    JSON = "json"


def env(
    context: typer.Context,
    slug: Slug,
    *,
    form: Annotated[Format, typer.Option("--format", help="Output format: shell, .env file or JSON.")] = Format.SH,
    show_secrets: Annotated[
        bool,
        typer.Option(
            "--show-secrets",
            help="Write passwords and keys in clear text instead of references to their variables.",
        ),
    ] = False,
    output: Output = None,  # noqa: ARG001 (parsing.py writes the file)
    json: Json = False,
) -> None:
    """Show the variables that select a tenant's tables."""
    with open_tenancy(context) as tenants:
        variables = tenants.env(tenant_of(tenants, slug))
        references = {} if show_secrets else _references(tenants, variables)
    form = Format.JSON if json else form
    if form is Format.JSON:
        show_json({key: f"${{{references[key]}}}" if key in references else value for key, value in variables.items()})
        return
    for key, value in variables.items():
        if form is Format.SH:
            reference = references.get(key)
            # This expansion fails when the variable is unset, instead of selecting another database.
            text = shlex.quote(value) if reference is None else f'"${{{reference}:?is not set}}"'
            say(f"export {key}={text}")
        elif key not in references:
            say(f"{key}={_quoted(value)}")
        elif key != references[key]:  # some readers loop on a variable that refers to itself
            say(f"{key}=${{{references[key]}}}")


def _references(tenants: Tenancy, variables: Mapping[str, str]) -> Mapping[str, str]:
    """Map each variable whose value may be secret to the variable to refer to."""
    settings = tenants.settings
    urls = {
        settings.control_url.render_as_string(hide_password=False): "TENANCY_CONTROL_URL",
        settings.url.render_as_string(hide_password=False): "SQLALCHEMY_URL",
    }
    return {
        key: urls.get(value, key)
        for key, value in variables.items()
        if value in urls or (key in settings.given and not _WITHOUT_SECRETS.fullmatch(key))
    }


def _quoted(value: str) -> str:
    if not set(value) & {"'", "\\", "\n", "\r"}:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
