"""The commands about reactions, in the group `runner`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import typer

from tenancy.cli import shapes
from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Json
from tenancy.cli.output import say, show_json, show_table

if TYPE_CHECKING:
    from tenancy import Tenancy
    from tenancy.lifecycle.reaction_monitor import ReactionStatus

__all__ = ["react", "reactions", "show_reactions", "slugs_of"]


def reactions(context: typer.Context, *, json: Json = False) -> None:
    """Show lag, owner and failures of each reaction."""
    with open_tenancy(context) as tenants:
        found = tenants.reactions.status()
        slugs = slugs_of(tenants, found)
    if json:
        show_json([shapes.reaction(each) for each in found])
    else:
        show_reactions(found, slugs)


def react(context: typer.Context, *, json: Json = False) -> None:
    """Call reactions once for all events that wait. A running runner does so continuously."""
    with open_tenancy(context) as tenants:
        report = tenants.react()
    if json:
        show_json(shapes.reaction_report(report))
    elif report.owner is not None:
        say(f"Another process reacts: {report.owner}.")
    else:
        say(f"Reactions called: {report.processed}. Tenants with a failing reaction: {len(report.failures)}.")


def slugs_of(tenants: Tenancy, found: Sequence[ReactionStatus]) -> dict[UUID, str]:
    """Return the slugs of the tenants with failures, by id."""
    ids = {failure.tenant_id for each in found for failure in each.failures}
    return {tenant.id: tenant.slug for tenant in tenants.fleet.registry.get_many(list(ids)).values()}


def show_reactions(found: Sequence[ReactionStatus], slugs: Mapping[UUID, str]) -> None:
    """Print the table of reactions."""
    header = ("reaction", "events", "state", "lag", "owner", "tenant", "failed at", "attempts", "error")
    rows: list[tuple[object, ...]] = []
    for each in found:
        events = ", ".join(each.events) or ("all" if each.is_registered else "")
        first = (each.reaction, events, each.state, each.lag, each.owner or "none")
        rows += [
            (*first, slugs.get(failure.tenant_id, failure.tenant_id), failure.number, failure.attempts, failure.error)
            for failure in each.failures
        ] or [(*first, "", "", "", "")]
    show_table(header, rows)
