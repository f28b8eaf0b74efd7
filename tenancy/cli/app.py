"""The Typer application: commands in the order of ``--help``, each with an example."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Final

import typer

from tenancy.cli.commands.adopt import adopt
from tenancy.cli.commands.create import create
from tenancy.cli.commands.doctor import doctor
from tenancy.cli.commands.domains import domains
from tenancy.cli.commands.env import env
from tenancy.cli.commands.exec import exec_
from tenancy.cli.commands.init import init
from tenancy.cli.commands.jobs import jobs
from tenancy.cli.commands.migrate import migrate
from tenancy.cli.commands.migrations import migrations
from tenancy.cli.commands.rebuild import rebuild
from tenancy.cli.commands.remove import delete, purge
from tenancy.cli.commands.runner import runner
from tenancy.cli.commands.show import history, list_, show
from tenancy.cli.commands.update import archive, rename, restore, resume, suspend, undelete, update
from tenancy.cli.commands.usage import usage
from tenancy.cli.errors import USAGE
from tenancy.cli.loader import FleetOptions
from tenancy.cli.output import say
from tenancy.cli.parsing import Command, Group

__all__ = ["COMMANDS", "URL_VARIABLE", "app"]

URL_VARIABLE: Final = "_TENANCY_URL"
"""Holds the value of ``--url`` after the command has re-executed itself to hide a password."""

COMMANDS: Final[tuple[tuple[str, Callable[..., None], str], ...]] = (
    ("init", init, "tenancy --app shop:tenants init"),
    ("create", create, "tenancy create acme globex"),
    ("adopt", adopt, "tenancy adopt acme --schema legacy"),
    ("list", list_, "tenancy list --status suspended --where plan=free"),
    ("show", show, "tenancy show acme"),
    ("usage", usage, "tenancy usage --where plan=free"),
    ("rename", rename, "tenancy rename acme apex --name 'Apex Ltd'"),
    ("update", update, "tenancy update acme --set plan=pro --set seats:=5 --unset trial"),
    ("suspend", suspend, "tenancy suspend acme --reason 'invoice 4711' --reads"),
    ("resume", resume, "tenancy resume acme"),
    ("archive", archive, "tenancy archive acme"),
    ("restore", restore, "tenancy restore acme"),
    ("delete", delete, "tenancy delete acme --reason 'contract ended'"),
    ("undelete", undelete, "tenancy undelete acme"),
    ("purge", purge, "tenancy purge acme --certificate purged.jsonl"),
    ("history", history, "tenancy history acme"),
    ("env", env, 'eval "$(tenancy env acme)"'),
    ("exec", exec_, "tenancy exec acme -- python import.py dogs.csv"),
    ("migrate", migrate, "tenancy --app shop:tenants migrate --canary 5 --check 'python smoke_test.py'"),
    ("rebuild", rebuild, "tenancy rebuild DogCounters acme globex --canary 1"),
    ("doctor", doctor, "tenancy doctor --repair"),
)
"""Name, function and example of each command."""

# No Rich markup: it doubles the time of --help and draws boxes that some terminals lack. No Typer tracebacks: they show
# the values of variables, including passwords.
app = typer.Typer(cls=Group, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(*, wanted: bool) -> None:
    if wanted:
        say(f"tenancy {version('eventsourcing-sqlalchemy')}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog="Exit codes: 0 success, 1 failure, 2 usage error, 3 not found, 4 already exists, 5 refused by tenant "
    "or job status, 6 database unreachable, 7 partly done.",
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
            help="Tenancy object in your code, or function that returns one. Default: [tool.tenancy] in pyproject.toml."
            " Existing tenants can be managed without it.",
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
            help="Database URL. Overrides SQLALCHEMY_URL.",
            show_default=False,
        ),
    ] = None,
    traceback: Annotated[  # noqa: ARG001 (run.py reads it, even if the arguments are wrong)
        bool, typer.Option("--traceback", help="Show the traceback of an error.")
    ] = False,
    show_version: Annotated[  # noqa: ARG001 (its callback handles it)
        bool, typer.Option("--version", help="Show version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Manage tenants, each with its own tables, and run their followers."""
    context.obj = FleetOptions(app_name, url)
    os.environ.pop(URL_VARIABLE, None)  # not for the programs that this process runs
    if url is not None:
        os.environ["SQLALCHEMY_URL"] = url
    _help_without_command(context)


def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        say(context.get_help())
        raise typer.Exit(USAGE)


for _name, _function, _example in COMMANDS:
    app.command(_name, cls=Command, epilog=f"Example: {_example}")(_function)

for _name, _group, _help in (
    ("domains", domains, "Manage the host names of tenants."),
    ("runner", runner, "Run followers, inspect them, and retry failures."),
    ("migrations", migrations, "Set up migrations of your own tables."),
    ("jobs", jobs, "Run operations over many tenants, and control them."),
):
    app.add_typer(
        _group,
        name=_name,
        help=_help,
        callback=_help_without_command,
        invoke_without_command=True,
        no_args_is_help=False,
    )
