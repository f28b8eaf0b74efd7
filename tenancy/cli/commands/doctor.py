"""The command doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenancy.cli.errors import FAILED, UNREACHABLE, masked
from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Actor, Json, Output
from tenancy.cli.output import note, printable, show_json, show_table

if TYPE_CHECKING:
    from tenancy.operations.doctor import Finding

__all__ = ["doctor"]


def doctor(
    context: typer.Context,
    *,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Complete unfinished tenants and purges, create missing tables, advance sequences.",
        ),
    ] = False,
    actor: Actor = None,
    output: Output = None,  # noqa: ARG001 (parsing.py writes the file)
    json: Json = False,
) -> None:
    """Check the database, the registry and all tenant tables. Exits with 1 if a check fails."""
    from tenancy.operations import doctor as examination  # noqa: PLC0415 (slow: loads SQLAlchemy)

    repairs = []
    with open_tenancy(context) as tenants:
        findings = examination.examine(tenants.fleet)
        if repair and not examination.is_unreachable(findings):
            for each in examination.repair(tenants.fleet, actor=actor):
                repairs.append(each)
                if not json:
                    note(f"{'repaired' if each.level == 'ok' else 'not repaired'}: {printable(masked(each.what))}")
            findings = examination.examine(tenants.fleet)
    if json:
        show_json({"findings": [_shape(each) for each in findings], "repairs": [_shape(each) for each in repairs]})
    else:
        show_table(
            ("", "about", "finding"),
            [(each.level, each.name, masked(f"{each.what} {each.remedy}".rstrip())) for each in findings],
        )
    if examination.is_unreachable(findings):
        raise typer.Exit(UNREACHABLE)
    if any(each.level == "failure" for each in findings):
        raise typer.Exit(FAILED)


def _shape(finding: Finding) -> dict[str, Any]:
    # Errors of user code may contain the database URL.
    return {key: masked(value) if isinstance(value, str) else value for key, value in asdict(finding).items()}
