"""The Typer application: commands in the order of ``--help``, each with an example."""

from __future__ import annotations

import os
from functools import partial
from typing import Annotated, Any, Final

import typer

from tenancy.cli.errors import USAGE
from tenancy.cli.lazy import LazyCommands, command_of, group_of
from tenancy.cli.loader import FleetOptions
from tenancy.cli.output import say
from tenancy.cli.parsing import Group

__all__ = ["COMMANDS", "GROUPS", "URL_VARIABLE", "app"]

URL_VARIABLE: Final = "_TENANCY_URL"
"""Holds the value of ``--url`` after the command has re-executed itself to hide a password."""

COMMANDS: Final = (
    ("init", "init:init", "tenancy --app shop:tenants init"),
    ("create", "create:create", "tenancy create acme globex"),
    ("adopt", "adopt:adopt", "tenancy adopt acme --schema legacy"),
    ("list", "show:list_", "tenancy list --status suspended --where plan=free"),
    ("show", "show:show", "tenancy show acme"),
    ("usage", "usage:usage", "tenancy usage --where plan=free"),
    ("rename", "update:rename", "tenancy rename acme apex --name 'Apex Ltd'"),
    ("update", "update:update", "tenancy update acme --set plan=pro --set seats:=5 --unset trial"),
    ("suspend", "update:suspend", "tenancy suspend acme --reason 'invoice 4711' --reads"),
    ("resume", "update:resume", "tenancy resume acme"),
    ("archive", "update:archive", "tenancy archive acme"),
    ("restore", "update:restore", "tenancy restore acme"),
    ("delete", "remove:delete", "tenancy delete acme --reason 'contract ended'"),
    ("undelete", "update:undelete", "tenancy undelete acme"),
    ("purge", "remove:purge", "tenancy purge acme --certificate purged.jsonl"),
    ("history", "show:history", "tenancy history acme"),
    ("env", "env:env", 'eval "$(tenancy env acme)"'),
    ("exec", "exec:exec_", "tenancy exec acme -- python import.py dogs.csv"),
    ("migrate", "migrate:migrate", "tenancy --app shop:tenants migrate --canary 5 --check 'python smoke_test.py'"),
    ("rebuild", "rebuild:rebuild", "tenancy rebuild DogCounters acme globex --canary 1"),
    ("ping", "ping:ping", "tenancy ping --timeout 5"),
    ("doctor", "doctor:doctor", "tenancy doctor --repair"),
)
"""Name, place of the function, and example of each command."""

GROUPS: Final = (
    ("domains", "domains:domains", "Manage the host names of tenants."),
    ("runner", "runner:runner", "Run followers, inspect them, and retry failures."),
    ("migrations", "migrations:migrations", "Set up migrations of your own tables."),
    ("jobs", "jobs:jobs", "Run operations over many tenants, and control them."),
)
"""Name, place and description of each group of commands."""


class _Root(Group):
    """All commands; a command imports only what it needs itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        commands = {name: partial(command_of, name, topic, example) for name, topic, example in COMMANDS}
        groups = {name: partial(group_of, name, topic, text, _help_without_command) for name, topic, text in GROUPS}
        self.commands = LazyCommands({**commands, **groups})

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, without importing them."""
        return list(self.commands)


# No Rich markup: it doubles the time of --help and draws boxes that some terminals lack. No Typer tracebacks: they show
# the values of variables, including passwords.
app = typer.Typer(
    cls=_Root,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 (slow; only for this option)

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
