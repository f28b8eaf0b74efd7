"""A fleet of kennels whose new tenants get a house dog, and whose lifecycle events are written to a file.

Effects outside of the database are lines of the file that the variable KENNEL_LOG names.
"""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID, uuid5

from eventsourcing.domain import event

from tenancy import LifecycleEvent, Tenancy, Tenant
from tests.samples.kennels import Dog, Kennel


class Mascot(Dog):
    """The first dog of a tenant. Its id follows from the tenant's, so that registering it again is a conflict."""

    @event("Adopted")
    def __init__(self, name: str, tenant_id: UUID) -> None:
        self.name = name

    @staticmethod
    def create_id(name: str, tenant_id: UUID) -> UUID:
        """Return the id of a tenant's mascot."""
        return uuid5(tenant_id, name)


def note(line: str) -> None:
    """Write a line to the log of effects; one write is atomic."""
    with Path(os.environ["KENNEL_LOG"]).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def notes() -> list[str]:
    """Return the lines of the log."""
    path = Path(os.environ["KENNEL_LOG"])
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def seed(tenant: Tenant) -> None:
    """Register the mascot, once, and announce it."""
    kennel = tenant.get(Kennel)
    if uuid5(tenant.id, "Rex") not in kennel.repository:
        kennel.save(Mascot("Rex", tenant.id))
    note(f"seed {tenant.slug}")


def announce(lifecycle_event: LifecycleEvent) -> None:
    """Write an event to the log."""
    note(f"{lifecycle_event.name} {lifecycle_event.slug} {lifecycle_event.key}")


def tenants(url: str | None = None) -> Tenancy:
    """Return the fleet."""
    fleet = Tenancy(applications=[Kennel], env=None if url is None else {"SQLALCHEMY_URL": url})
    fleet.on_created(seed)
    fleet.after("activated", "suspended", "resumed", "purged")(announce)
    return fleet
