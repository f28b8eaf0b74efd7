"""The command exec."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Json, Slug

__all__ = ["exec_"]


def exec_(
    context: typer.Context,
    slug: Slug,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="Program and its arguments, after --.")],
    *,
    json: Json = False,  # noqa: ARG001 (read by run.py, for errors)
) -> None:
    """Run a program that uses a tenant's tables. It replaces this process."""
    with open_tenancy(context) as tenants:
        tenant = tenant_of(tenants, slug)
        with tenants.scope(tenant):  # raises at once when the tenant cannot be read
            variables = tenants.env(tenant)
    _become(command, variables)


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
