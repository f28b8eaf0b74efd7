"""A fleet's projections. Each tenant has its own view, in tables beside its applications'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventsourcing.persistence import TrackingRecorder
from eventsourcing.projection import Projection
from eventsourcing.utils import get_topic

from tenancy.errors import NotRegistered, TenancyError
from tenancy.model.application_spec import ApplicationSpec, projection_spec_of

if TYPE_CHECKING:
    from eventsourcing.application import Application

__all__ = ["Projections", "RegisteredProjection", "check_registered", "name_taken"]


@dataclass(frozen=True, slots=True)
class RegisteredProjection:
    """A registered projection with its application and its view class."""

    application: type[Application[Any]]
    projection: type[Projection[Any]]
    view: type[TrackingRecorder]

    @property
    def version(self) -> str | None:
        """The ``version`` of the view class as text, or None. With another one, the view must be rebuilt."""
        version = getattr(self.view, "version", None)
        return None if version is None else str(version)


class Projections:
    """A fleet's registered projections by name."""

    def __init__(self) -> None:
        self._registered: dict[str, RegisteredProjection] = {}

    def __iter__(self) -> Iterator[RegisteredProjection]:
        return iter(self._registered.values())

    def register(self, registered: RegisteredProjection, applications: Mapping[str, type[Application[Any]]]) -> None:
        """Register a projection.

        Raises NotRegistered for an application that is not part of the fleet, and TenancyError for a duplicate name.
        """
        leader, name = registered.application, registered.projection.name
        check_registered(leader, applications)
        if name in applications or self._registered.get(name, registered) != registered:
            raise name_taken(registered.projection)
        self._registered[name] = registered

    def find(self, projection: type[Projection[Any]]) -> RegisteredProjection:
        """Return a projection's registration; raises NotRegistered."""
        registered = self._registered.get(projection.name)
        if registered is None or registered.projection is not projection:
            msg = f"Projection {projection.name!r} ({get_topic(projection)}) is not registered with this Tenancy."
            raise NotRegistered(msg, remedy="Register it: tenants.project(application, projection, view)")
        return registered

    def named(self, name: str, others: Iterable[str] = ()) -> RegisteredProjection:
        """Return a projection's registration by its name; raises NotRegistered.

        ``others`` are names that the caller accepts as well, for the message.
        """
        registered = self._registered.get(name)
        if registered is None:
            msg = f"Projection {name!r} is not registered with this Tenancy."
            remedy = f"Pass one of: {', '.join(sorted([*self._registered, *others])) or 'none'}."
            raise NotRegistered(msg, remedy=remedy)
        return registered

    def versions(self) -> dict[str, str]:
        """Return the version of each view that has one, by the projection's name."""
        return {each.projection.name: each.version for each in self if each.version is not None}

    def application_specs(self, environment: Mapping[str, str]) -> Sequence[ApplicationSpec]:
        """Return the tables of the views."""
        return [projection_spec_of(each.projection, each.view, each.application.name, environment) for each in self]


def check_registered(application: type[Application[Any]], applications: Mapping[str, type[Application[Any]]]) -> None:
    """Raise NotRegistered for an application that is not part of the fleet."""
    if applications.get(application.name) is not application:
        msg = f"Application {application.name!r} ({get_topic(application)}) is not registered with this Tenancy."
        raise NotRegistered(msg, remedy="Pass its class to Tenancy(applications=[...]).")


def name_taken(projection: type[Projection[Any]]) -> TenancyError:
    """Return the error for the name of a projection that an application or another projection has."""
    msg = f"The projection name {projection.name!r} is taken by an application or another projection."
    return TenancyError(msg, remedy="Rename it: their tables would be the same.")
