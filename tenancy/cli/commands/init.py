"""The command init."""

from __future__ import annotations

from typing import Annotated

import typer

from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Json
from tenancy.cli.output import say, show_json

__all__ = ["init"]


def init(
    context: typer.Context,
    *,
    accept_encodings: Annotated[
        bool,
        typer.Option(
            "--accept-encodings",
            help="Switch the fleet to this process's ciphers and compressors. They must be able to read stored events.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Create the registry and record the applications. Run it again when the applications change."""
    with open_tenancy(context) as tenants:
        tenants.init(accept_encodings=accept_encodings)
        applications = [application_spec.application for application_spec in tenants.application_specs()]
        where = str(tenants.fleet.registry)
    if json:
        show_json({"registry": where, "applications": applications})
        return
    say(f"Ready: {where}.")
    say(f"Applications: {', '.join(applications) or 'none yet. Record them: tenancy --app module:tenants init'}")
