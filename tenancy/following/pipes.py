"""Pipes: which follower reads which leader. They are the same for every tenant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from eventsourcing_sqlalchemy.naming import TableName
from tenancy.model.application_spec import ApplicationSpec
from tenancy.model.placement import Placement
from tenancy.model.versions import Versions

if TYPE_CHECKING:
    from tenancy.storage.cross_tenant import CrossTenantProjection

__all__ = ["Pipe", "Pipes"]


class Pipe(NamedTuple):
    """The name of a follower or projection, and of one application whose events it processes."""

    leader: str
    follower: str


class Pipes:
    """All pipes of a fleet, and the tables they use."""

    def __init__(
        self, application_specs: Sequence[ApplicationSpec], cross_tenant: Iterable[CrossTenantProjection] = ()
    ) -> None:
        self._application_specs = {
            application_spec.application: application_spec for application_spec in application_specs
        }
        pipes = [
            Pipe(leader, application_spec.application)
            for application_spec in application_specs
            for leader in application_spec.follows
        ]
        pipes += [Pipe(leader, projection.name) for projection in cross_tenant for leader in projection.applications]
        self.all: Sequence[Pipe] = _downstream(pipes)
        """In downstream order: a leader's own pipes come first, except in cycles."""

    def events_table(self, pipe: Pipe, placement: Placement, default_schema: str | None) -> TableName:
        """Return the leader's events table, which the tenant's follower reads."""
        return self._table(pipe.leader, "events", placement, default_schema)

    def tracking_table(self, pipe: Pipe, placement: Placement, default_schema: str | None) -> TableName | None:
        """Return the tenant's table that stores its follower's positions, or None for a projection over all tenants."""
        if pipe.follower not in self._application_specs:
            return None
        return self._table(pipe.follower, "tracking", placement, default_schema)

    def lacking(self, pipe: Pipe, versions: Versions) -> Sequence[str]:
        """Return the tables of the package that a tenant's follower needs, and that are still to be created.

        Empty if it is unknown which tables exist.
        """
        if not versions.created:
            return ()
        follower = self._application_specs.get(pipe.follower)
        needed = self._application_specs[pipe.leader].table_names()
        return versions.lacks(needed if follower is None else [*needed, *follower.table_names()])

    def _table(self, name: str, kind: str, placement: Placement, default_schema: str | None) -> TableName:
        specs = self._application_specs[name].specs(placement, default_schema)
        return next(spec.name for spec in specs if spec.kind == kind)


def _downstream(pipes: Iterable[Pipe]) -> list[Pipe]:
    waiting, ordered = list(pipes), list[Pipe]()
    while waiting:
        unfinished = {pipe.follower for pipe in waiting}
        # In a cycle no pipe comes first, so take any.
        ready = [pipe for pipe in waiting if pipe.leader not in unfinished] or waiting[:1]
        ordered += ready
        waiting = [pipe for pipe in waiting if pipe not in ready]
    return ordered
