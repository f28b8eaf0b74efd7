"""Who follows whom, the same for every tenant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from eventsourcing_sqlalchemy.naming import TableName
from tenancy.model.application_spec import ApplicationSpec
from tenancy.model.placement import Placement

__all__ = ["Pipe", "Pipes"]


class Pipe(NamedTuple):
    """A follower, or a projection, and one of the applications whose events it processes; both by name."""

    leader: str
    follower: str


class Pipes:
    """All pipes of a fleet, and which tables they are about."""

    def __init__(self, application_specs: Sequence[ApplicationSpec]) -> None:
        self._application_specs = {
            application_spec.application: application_spec for application_spec in application_specs
        }
        pipes = [
            Pipe(leader, application_spec.application)
            for application_spec in application_specs
            for leader in application_spec.follows
        ]
        self.all: Sequence[Pipe] = _downstream(pipes)
        """In the order of the way that events take, as far as they take no round trips."""

    def events_table(self, pipe: Pipe, placement: Placement, default_schema: str | None) -> TableName:
        """Return the table that a tenant's follower reads."""
        return self._table(pipe.leader, "events", placement, default_schema)

    def tracking_table(self, pipe: Pipe, placement: Placement, default_schema: str | None) -> TableName:
        """Return the table with the positions of a tenant's follower."""
        return self._table(pipe.follower, "tracking", placement, default_schema)

    def _table(self, name: str, kind: str, placement: Placement, default_schema: str | None) -> TableName:
        specs = self._application_specs[name].specs(placement, default_schema)
        return next(spec.name for spec in specs if spec.kind == kind)


def _downstream(pipes: Iterable[Pipe]) -> list[Pipe]:
    waiting, ordered = list(pipes), list[Pipe]()
    while waiting:
        unfinished = {pipe.follower for pipe in waiting}
        # In a circle nobody is first: then one is as good as another.
        ready = [pipe for pipe in waiting if pipe.leader not in unfinished] or waiting[:1]
        ordered += ready
        waiting = [pipe for pipe in waiting if pipe not in ready]
    return ordered
