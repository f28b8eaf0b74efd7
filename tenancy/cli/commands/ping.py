"""The command ping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tenancy.cli import shapes
from tenancy.cli.errors import FAILED, UNREACHABLE, masked, report_of
from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Json, Output, seconds
from tenancy.cli.output import show_json, show_table

if TYPE_CHECKING:
    from tenancy.operations.health import DatabaseHealth, Health

__all__ = ["ping"]


def ping(
    context: typer.Context,
    *,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.0, callback=seconds, help="Seconds to wait for all databases."
        ),
    ] = 2.0,
    output: Output = None,  # noqa: ARG001 (parsing.py writes the file)
    json: Json = False,
) -> None:
    """Check whether the databases of the fleet answer. Changes nothing."""
    with open_tenancy(context) as tenants:
        health = tenants.ping(timeout)
    if json:
        show_json(shapes.health(health))
    else:
        rows = [(each.name, _state(each), f"{each.seconds * 1000:.0f} ms", _why(each)) for each in health.databases]
        show_table(("database", "state", "after", "error"), rows)
    if not health.is_healthy:
        raise typer.Exit(_exit_code(health))


def _state(database: DatabaseHealth) -> str:
    return "ok" if database.is_healthy else "failure"


def _why(database: DatabaseHealth) -> str:
    return "" if database.error is None else masked(str(database.error))


def _exit_code(health: Health) -> int:
    errors = [each.error for each in health.databases if each.error is not None]
    reports = [report_of(error) for error in errors if not isinstance(error, TimeoutError)]
    is_reached = len(reports) == len(errors) and all(each is None or each.exit_code != UNREACHABLE for each in reports)
    return FAILED if is_reached else UNREACHABLE
