"""Projections of an application of the fleet. Each tenant has its own view, in tables beside its applications'."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventsourcing.persistence import InfrastructureFactory, TrackingRecorder
from eventsourcing.projection import Projection
from eventsourcing.utils import Environment, get_topic

from tenancy.errors import NotRegistered, TenancyError
from tenancy.model.application_spec import ApplicationSpec, projection_spec_of

if TYPE_CHECKING:
    from eventsourcing.application import Application

__all__ = ["Projections", "RegisteredProjection", "TenantProjection"]


@dataclass(frozen=True, slots=True)
class RegisteredProjection:
    """What was registered: a projection of an application, and the class of its views."""

    application: type[Application[Any]]
    projection: type[Projection[Any]]
    view: type[TrackingRecorder]


class Projections:
    """What was registered for a fleet, by the names of the projections."""

    def __init__(self) -> None:
        self._registered: dict[str, RegisteredProjection] = {}

    def __iter__(self) -> Iterator[RegisteredProjection]:
        return iter(self._registered.values())

    def register(self, registered: RegisteredProjection, applications: Mapping[str, type[Application[Any]]]) -> None:
        """Add one; raises NotRegistered for an application that the fleet does not have, and TenancyError for a name
        that is taken.
        """
        leader, name = registered.application, registered.projection.name
        if applications.get(leader.name) is not leader:
            msg = f"The application {leader.name!r} ({get_topic(leader)}) is none of these tenants'."
            raise NotRegistered(msg, remedy="Give its class to Tenancy(applications=[...]).")
        if name in applications or self._registered.get(name, registered) != registered:
            msg = f"The name of the projection {name!r} is that of an application or of another projection."
            raise TenancyError(msg, remedy="Give it another name: their tables would be the same.")
        self._registered[name] = registered

    def find(self, projection: type[Projection[Any]]) -> RegisteredProjection:
        """Return what was registered with a projection; raises NotRegistered."""
        registered = self._registered.get(projection.name)
        if registered is None or registered.projection is not projection:
            msg = f"The projection {projection.name!r} ({get_topic(projection)}) is none of these tenants'."
            raise NotRegistered(msg, remedy="Register it: tenants.project(application, projection, view)")
        return registered

    def application_specs(self, environment: Mapping[str, str]) -> Sequence[ApplicationSpec]:
        """Return the tables of the views."""
        return [projection_spec_of(each.projection, each.view, each.application.name, environment) for each in self]


class TenantProjection:
    """A projection of one tenant with its view."""

    def __init__(self, registered: RegisteredProjection, process: Mapping[str, str], env: Mapping[str, str]) -> None:
        # An application adds the environment of the process by itself.
        factory: InfrastructureFactory[Any] = InfrastructureFactory.construct(
            Environment(registered.projection.name, {**process, **env})
        )
        self.view = factory.tracking_recorder(registered.view)
        self.projection = registered.projection(self.view)
        self.closing = threading.Event()
        # With the view, which somebody may hold and nothing else.
        self._close = weakref.finalize(self.view, factory.close)

    def __repr__(self) -> str:
        return f"TenantProjection({type(self.projection).__name__}, view={self.view!r})"

    def close(self) -> None:
        """Give the engine back."""
        self.closing.set()
        self._close()
