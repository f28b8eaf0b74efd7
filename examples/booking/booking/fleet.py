"""All businesses as one fleet. Its place is in the environment: SQLALCHEMY_URL, TENANCY_... ."""

from __future__ import annotations

import logging

from eventsourcing.system import System

from booking.agenda import Agenda, KeepAgenda
from booking.domain import Appointments, Catalogue, Reminders
from booking.plans import quotas_of
from tenancy import LifecycleEvent, Tenancy, Tenant

__all__ = ["make_fleet"]

logger = logging.getLogger("booking")


def make_fleet() -> Tenancy:
    """Return the fleet. Processes of the service call it once, tests once for each database."""
    tenants = Tenancy(
        applications=[Catalogue],
        system=System(pipes=[[Appointments, Reminders]]),
        quotas=quotas_of,
        env={"TENANCY_SLUGS": "dns"},  # slugs are parts of host names
    )
    tenants.project(Appointments, KeepAgenda, Agenda)

    @tenants.on_created
    def fill_catalogue(tenant: Tenant) -> None:
        """Give a new business an offer, before it is served."""
        tenant.get(Catalogue).add("Consultation", minutes=30)

    @tenants.after("activated", "suspended", "resumed", "purged")
    def tell_billing(event: LifecycleEvent) -> None:
        """Stand for a call of the billing service; the runner repeats it until it succeeds."""
        logger.info("billing: %s %s", event.name, event.tenant_id)

    return tenants
