"""Process everything that followers, projections and reactions have to do, in the calling thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenancy.following.follower import FollowerDriver, open_follower
from tenancy.following.pipes import Pipes
from tenancy.lifecycle.reactions import Reactor
from tenancy.model.tenant import TenantStatus

if TYPE_CHECKING:
    from tenancy.tenancy import Tenancy

__all__ = ["follow"]


def follow(tenants: Tenancy) -> int:
    """Let all followers of all active tenants catch up, and call all reactions; return how much was processed.

    Tenants are processed in slug order, followers in downstream order, and all again until nothing is left. The error
    of a policy, a projection or a reaction is raised.
    """
    fleet = tenants.fleet
    pipes = Pipes(fleet.application_specs(), fleet.cross_tenant)
    reactor = Reactor(fleet.registry, fleet.reactions, raises=True)
    fleet.reactions.record()
    total = 0
    while True:
        processed = reactor.run(lambda: True)
        for tenant in fleet.registry.list(TenantStatus.ACTIVE):
            for pipe in pipes.all:
                processed += _catch_up(open_follower(fleet, tenant, pipe))
        total += processed
        if not processed:
            return total


def _catch_up(driver: FollowerDriver) -> int:
    processed, recorded = 0, driver.position()
    position = recorded
    for page in driver.pages(recorded):
        for notification in page.wanted:
            driver.process(notification, recorded)
            recorded = driver.position()
            processed += 1
        position = page.last_id
    if position > driver.position():
        driver.record(position, recorded)  # of events that are ignored
    return processed
