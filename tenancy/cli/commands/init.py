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
            help="Change the fleet to the ciphers and compressors of this process. They must read what is stored.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Make the registry, and record the applications of the code. Again, it records what has changed."""
    with open_tenancy(context) as tenants:
        tenants.init(accept_encodings=accept_encodings)
        applications = [application_spec.application for application_spec in tenants.application_specs()]
        where = str(tenants.registry)
    if json:
        show_json({"registry": where, "applications": applications})
        return
    say(f"Ready: {where}.")
    say(f"Applications: {', '.join(applications) or 'none yet. Record them: tenancy --app module:tenants init'}")
