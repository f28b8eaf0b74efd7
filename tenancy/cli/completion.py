"""Complete slugs in the shell. It never fails and never writes: a shell shows nothing but suggestions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import typer

__all__ = ["complete_slug", "is_completing"]

# More would fill the screen.
_MANY: Final = 100


def is_completing() -> bool:
    """Return whether a shell asks for suggestions, instead of running a command."""
    return bool(os.environ.get("_TENANCY_COMPLETE"))


def complete_slug(context: typer.Context, incomplete: str) -> Sequence[str]:
    """Return the first slugs that begin with a text."""
    from tenancy.cli.loader import FleetOptions, open_tenancy  # noqa: PLC0415 (slow; only for suggestions)

    root: Any = context.find_root()
    # The callback of the root, which stores the options, is not called for suggestions.
    root.obj = FleetOptions(root.params.get("app_name"), root.params.get("url"))
    if root.obj.url is not None:
        os.environ["SQLALCHEMY_URL"] = root.obj.url
    try:
        with open_tenancy(root) as tenants:
            return tenants.fleet.registry.slugs_from(incomplete, _MANY)
    except Exception:  # noqa: BLE001 (whatever is wrong, the command itself reports)
        return []
