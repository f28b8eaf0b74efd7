"""A persistence module that puts an application's tables into a tenant's placement."""

from __future__ import annotations

from eventsourcing_sqlalchemy import factory as persistence
from eventsourcing_sqlalchemy.settings import Location
from tenancy.isolation.environment import TENANT, PlacedTenant

__all__ = ["PlacedFactory"]


class PlacedFactory(persistence.SQLAlchemyFactory):
    """Constructs the recorders of one application of one tenant; does not check whether the tenant may be used."""

    def _location(self) -> Location | None:
        tenant = self.env.get(TENANT)
        return tenant.location(self.env.name) if isinstance(tenant, PlacedTenant) else None
