"""A job whose effects can be counted, and a fleet of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from eventsourcing.application import Application

from eventsourcing_sqlalchemy.background import pause
from tenancy import Tenancy, Tenant
from tenancy.operations.jobs import ItemSkipped, JobItem, JobKind, PlannedItem

METADATA = sa.MetaData()
EFFECTS = sa.Table(
    "job_effects",
    METADATA,
    sa.Column("tenant_id", sa.Uuid, primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
)
"""One row for each step that had its effect: a second effect would be a conflict."""
STARTS = sa.Table(
    "job_starts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("tenant_id", sa.Uuid, nullable=False),
    sa.Column("process", sa.Integer, nullable=False),
)
"""One row for each start of an item."""


class Kennel(Application[Any]):
    """The application of the fleet."""


def tenants() -> Tenancy:
    """Return the fleet."""
    return Tenancy(applications=[Kennel], code_version="7.1")


class Count(JobKind):
    """Runs ``steps`` idempotent steps for each tenant.

    Tenants in ``poisoned`` fail, those in ``idle`` need no work, and those in ``skipped`` need none any more. With
    ``gate``, an item that has started waits for that file, and calls check() meanwhile unless ``deaf``.
    """

    name = "count"

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        steps = self.parameters.get("steps", 1)
        return [
            PlannedItem(tenant, f"{steps} steps")
            for tenant in tenants
            if tenant.slug not in self.parameters.get("idle", ())
        ]

    def run(self, tenant: Tenant, item: JobItem) -> str:
        engine = self.fleet.shard.datastore.engine
        with engine.begin() as connection:
            connection.execute(sa.insert(STARTS).values(tenant_id=tenant.id, process=os.getpid()))
        if tenant.slug in self.parameters.get("skipped", ()):
            raise ItemSkipped("nothing to count")
        self._wait(item)
        if tenant.slug in self.parameters.get("poisoned", ()) and not self._is_cured():
            raise ValueError(f"canary {tenant.slug}")
        for step in range(item.progress.get("steps", 0), self.parameters.get("steps", 1)):
            item.check()
            with engine.begin() as connection:
                had_effect = sa.select(EFFECTS).where(EFFECTS.c.tenant_id == tenant.id, EFFECTS.c.step == step)
                if connection.execute(had_effect).first() is None:
                    connection.execute(sa.insert(EFFECTS).values(tenant_id=tenant.id, step=step))
            item.save_progress({"steps": step + 1})
        return f"{self.parameters.get('steps', 1)} steps"

    def _wait(self, item: JobItem) -> None:
        gate = self.parameters.get("gate")
        while gate is not None and not Path(gate).exists():
            if not self.parameters.get("deaf"):
                item.check()
            pause(0.01)

    def _is_cured(self) -> bool:
        cure = self.parameters.get("cure")
        return cure is not None and Path(cure).exists()


class Doomed(JobKind):
    """Ends the process."""

    name = "doomed"

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        return [PlannedItem(tenant, "end") for tenant in tenants]

    def run(self, tenant: Tenant, item: JobItem) -> str:
        raise SystemExit(3)


def create_tables(fleet: Tenancy) -> None:
    """Create the tables that count."""
    METADATA.create_all(fleet.fleet.shard.datastore.engine)


def effects(fleet: Tenancy) -> dict[str, int]:
    """Return the number of steps that had their effect, by tenant."""
    return _counted(fleet, EFFECTS)


def starts(fleet: Tenancy) -> dict[str, int]:
    """Return how often each tenant's item was started."""
    return _counted(fleet, STARTS)


def processes(fleet: Tenancy) -> set[int]:
    """Return the ids of the processes that have started items."""
    with fleet.fleet.shard.datastore.engine.connect() as connection:
        return set(connection.scalars(sa.select(STARTS.c.process)))


def _counted(fleet: Tenancy, table: sa.Table) -> dict[str, int]:
    slugs = {tenant.id: tenant.slug for tenant in fleet}
    query = sa.select(table.c.tenant_id, sa.func.count().label("number")).group_by(table.c.tenant_id)
    with fleet.fleet.shard.datastore.engine.connect() as connection:
        return {slugs[row.tenant_id]: row.number for row in connection.execute(query)}
