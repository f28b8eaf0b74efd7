"""Recorded positions of many followers, in few queries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from eventsourcing_sqlalchemy.high_water import read_positions
from tenancy.following.pipes import Pipe

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from eventsourcing_sqlalchemy.naming import TableName
    from tenancy.storage.cross_tenant_projections import CrossTenantProjections

__all__ = ["RecordedPositions"]


class RecordedPositions:
    """Reads positions from tenants' tables, and from the views of projections over all tenants."""

    def __init__(self, datastore: SQLAlchemyDatastore, cross_tenant: CrossTenantProjections) -> None:
        self._datastore = datastore
        self._cross_tenant = cross_tenant

    def read(self, followers: Iterable[tuple[UUID, Pipe, TableName | None]]) -> dict[tuple[UUID, Pipe], int]:
        """Return the positions of these tenants' followers, 0 for none. A missing tracking table has no entry."""
        followers = list(followers)
        tables = read_positions(self._datastore, list({table for *_, table in followers if table is not None}))
        found = {
            (tenant_id, pipe): tables[table].get(pipe.leader, 0)
            for tenant_id, pipe, table in followers
            if table is not None and table in tables
        }
        across: dict[Pipe, list[UUID]] = {}
        for tenant_id, pipe, table in followers:
            if table is None:
                across.setdefault(pipe, []).append(tenant_id)
        for pipe, ids in across.items():
            positions = self._cross_tenant[pipe.follower].positions(pipe.leader, ids)
            found |= {(tenant_id, pipe): positions.get(tenant_id, 0) for tenant_id in ids}
        return found
