"""The command as Typer knows it: its verbs in the order of ``--help``, each with an example."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer

from tenancy.cli.commands import create as making
from tenancy.cli.commands import remove as removing
from tenancy.cli.commands import show as looking
from tenancy.cli.commands import update as changing
from tenancy.cli.commands.doctor import doctor
from tenancy.cli.commands.env import env, exec_
from tenancy.cli.commands.runner import runner
from tenancy.cli.errors import USAGE
from tenancy.cli.loader import Named
from tenancy.cli.output import say
from tenancy.cli.parsing import Group, Verb

__all__ = ["URL_VARIABLE", "VERBS", "app"]

URL_VARIABLE: Final = "_TENANCY_URL"
"""Where a process that starts itself anew puts what ``--url`` said."""

VERBS: Final[tuple[tuple[str, Callable[..., None], str], ...]] = (
    ("init", making.init, "tenancy --app shop:tenants init"),
    ("create", making.create, "tenancy create acme globex"),
    ("adopt", making.adopt, "tenancy adopt acme --schema legacy"),
    ("list", looking.list_, "tenancy list --status suspended"),
    ("show", looking.show, "tenancy show acme"),
    ("rename", changing.rename, "tenancy rename acme apex --name 'Apex Ltd'"),
    ("suspend", changing.suspend, "tenancy suspend acme --reason 'invoice 4711' --reads"),
    ("resume", changing.resume, "tenancy resume acme"),
    ("archive", changing.archive, "tenancy archive acme"),
    ("restore", changing.restore, "tenancy restore acme"),
    ("delete", removing.delete, "tenancy delete acme --reason 'contract ended'"),
    ("undelete", changing.undelete, "tenancy undelete acme"),
    ("purge", removing.purge, "tenancy purge acme --certificate purged.jsonl"),
    ("history", looking.history, "tenancy history acme"),
    ("env", env, 'eval "$(tenancy env acme)"'),
    ("exec", exec_, "tenancy exec acme -- python import.py dogs.csv"),
    ("doctor", doctor, "tenancy doctor --repair"),
)
"""Name, function and example of each verb."""

# Without Rich's help, which takes twice as long and draws boxes that not every terminal has. Tracebacks stay Python's:
# Typer's show the values of variables, with the passwords among them.
app = typer.Typer(cls=Group, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(*, wanted: bool) -> None:
    if wanted:
        say(f"tenancy {version('eventsourcing-sqlalchemy')}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 exists, 5 refused by the tenant's status, "
    "6 database unreachable, 7 partly done.",
)
def _root(
    context: typer.Context,
    *,
    app_name: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:NAME",
            envvar="TENANCY_APP",
            help="The Tenancy object of your code, or a function that returns it. Otherwise that of [tool.tenancy] in "
            "pyproject.toml. Tenants that exist can be managed without it.",
            show_default=False,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            envvar=URL_VARIABLE,
            show_envvar=False,
            help="The database, instead of SQLALCHEMY_URL.",
            show_default=False,
        ),
    ] = None,
    traceback: Annotated[  # noqa: ARG001 (run.py looks for it, also when the arguments are wrong)
        bool, typer.Option("--traceback", help="Show where in the code an error comes from.")
    ] = False,
    show_version: Annotated[  # noqa: ARG001 (its callback does it)
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Make, run, change and remove tenants, each with its own tables."""
    context.obj = Named(app_name, url)
    os.environ.pop(URL_VARIABLE, None)  # it is for this process, and not for what it runs
    if url is not None:
        os.environ["SQLALCHEMY_URL"] = url
    _help_without_verb(context)


def _help_without_verb(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        say(context.get_help())
        raise typer.Exit(USAGE)


def _add(name: str, function: Callable[..., Any], example: str) -> None:
    app.command(name, cls=Verb, epilog=f"Example: {example}")(function)


for _verb in VERBS:
    _add(*_verb)

app.add_typer(
    runner,
    name="runner",
    help="Let followers process events, and see how they are.",
    callback=_help_without_verb,
    invoke_without_command=True,
    no_args_is_help=False,
)
