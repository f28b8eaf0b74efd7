"""The command exec."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

from tenancy.cli.completion import complete_slug
from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Json
from tenancy.cli.parsing import ARGUMENTS
from tenancy.cli.tenant_options import Limit, Status, Where, query_of

__all__ = ["exec_"]


def exec_(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SLUG] -- COMMAND...",
            help="Slug or id of the tenant; and program with its arguments, after --.",
            show_default=False,
            autocompletion=complete_slug,
        ),
    ] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Run the program for each active tenant, instead of one tenant.")
    ] = False,
    status: Status = None,
    where: Where = None,
    limit: Limit = None,
    parallel: Annotated[
        int, typer.Option("--parallel", metavar="NUMBER", min=1, max=1000, help="Number of programs at the same time.")
    ] = 1,
    stop: Annotated[bool, typer.Option("--stop", help="Start no more programs after one has failed.")] = False,
    json: Json = False,
) -> None:
    """Run a program that uses a tenant's tables. It replaces this process.

    With --all, --where or --status, it is run for each of many tenants, and each line of output begins with the slug.
    """
    is_many = every or bool(where) or status is not None
    slug, command = _split(context, words or [], is_many=is_many)
    if not is_many and (stop or parallel != 1 or limit is not None):
        raise _usage("--parallel, --stop and --limit need several tenants.", "Pass --all, --where or --status.")
    with open_tenancy(context) as tenants:
        if slug is None:
            from tenancy.cli.each import run_for_each  # noqa: PLC0415 (most commands run no programs)

            query = query_of(status or "active", where, limit=limit)
            run_for_each(tenants, query, command, parallel=parallel, stops=stop, as_json=json)
            return
        tenant = tenant_of(tenants, slug)
        with tenants.scope(tenant):  # raises at once when the tenant cannot be read
            variables = tenants.env(tenant)
    _become(command, variables)


def _split(context: typer.Context, words: list[str], *, is_many: bool) -> tuple[str | None, list[str]]:
    """Return the slug, or None for many tenants, and the command."""
    given = context.meta[ARGUMENTS]
    behind = len(given) - given.index("--") - 1 if "--" in given else len(words)
    if is_many:
        if len(words) > behind:
            msg = "A slug and options that choose tenants were given."
            raise _usage(msg, "Pass only one.")
        slug, command = None, words
    elif words:
        slug, command = words[0], words[1:]
    else:
        raise _usage("No tenant was given.", "Pass its slug, or --all.")
    if not command:
        raise _usage("No program was given.", "Pass it after --.")
    return slug, command


def _usage(message: str, remedy: str) -> CommandError:
    return CommandError(message, remedy=f"{remedy} See: tenancy exec --help")


def _become(command: list[str], variables: Mapping[str, str]) -> NoReturn:
    # Python ignores SIGPIPE. A program that inherits this would go on after its reader has closed the pipe.
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.stdout.flush()
    try:
        os.execvpe(command[0], command, {**os.environ, **variables})  # noqa: S606 (the user passes the program)
    except OSError as error:
        signal.signal(signal.SIGPIPE, before)
        msg = f"{command[0]!r} cannot be run: {error.strerror}."
        raise CommandError(msg, remedy="Pass the program and its arguments after --.", code="not_executable") from error
