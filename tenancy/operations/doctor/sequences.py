"""Find id sequences that are behind their tables, and move them forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy import sequences
from tenancy.operations.doctor.finding import Finding, counted, whole_tenants

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from eventsourcing_sqlalchemy.dialects.protocols import SequenceBehind
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["check", "repair"]


class _Behind(NamedTuple):
    """A tenant's or the registry's sequence that is behind its table."""

    datastore: SQLAlchemyDatastore
    sequence: SequenceBehind
    tenant: str | None = None

    @property
    def owner(self) -> str:
        return "registry" if self.tenant is None else repr(self.tenant)


def _find(fleet: Fleet, every: Sequence[Tenant]) -> list[_Behind]:
    inventory, registry = fleet.inventory, fleet.registry
    return [_Behind(registry.datastore, sequence) for sequence in registry.sequences_behind()] + [
        _Behind(fleet.shard.datastore, sequence, tenant.slug)
        for tenant, sequence in inventory.sequences_behind(whole_tenants(every), fleet.application_specs())
    ]


def check(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    """Yield the sequences of tenants and of the registry that are behind their tables."""
    behind = _find(fleet, every)
    if not behind:
        what = f"The sequences of {counted(len(whole_tenants(every)))} and of the registry are ahead of their tables."
        yield Finding(name="sequences", level="ok", what=what)
    for each in behind:
        sequence = each.sequence
        what = f"{each.owner}: {sequence.name} is behind the last id of {sequence.table}. Events are refused."
        remedy = "Move it forward: tenancy doctor --repair"
        yield Finding(name="sequences", level="failure", what=what, remedy=remedy, tenant=each.tenant)


def repair(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    """Move sequences forward, also after one that cannot be moved; yield each repair."""
    for each in _find(fleet, every):
        what = f"{each.owner}: {each.sequence.name} was advanced to the last id of its table."
        done = Finding(name="sequences", level="ok", what=what, tenant=each.tenant)
        try:
            sequences.repair(each.datastore, each.sequence)
        except PersistenceError as error:
            done = replace(done, level="failure", what=f"{each.owner}: {error}")
        yield done
