"""A fleet's projections. Each tenant has its own view, in tables beside its applications'."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from eventsourcing.persistence import InfrastructureFactory, TrackingRecorder
from eventsourcing.projection import Projection
from eventsourcing.utils import Environment, get_topic

from tenancy.errors import NotRegistered, TenancyError
from tenancy.model.application_spec import ApplicationSpec, projection_spec_of

if TYPE_CHECKING:
    from eventsourcing.application import Application

__all__ = ["Projections", "RegisteredProjection", "TenantProjection", "check_registered", "name_taken"]


@dataclass(frozen=True, slots=True)
class RegisteredProjection:
    """A registered projection with its application and its view class."""

    application: type[Application[Any]]
    projection: type[Projection[Any]]
    view: type[TrackingRecorder]


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

    def application_specs(self, environment: Mapping[str, str]) -> Sequence[ApplicationSpec]:
        """Return the tables of the views."""
        return [projection_spec_of(each.projection, each.view, each.application.name, environment) for each in self]

    def metadata(self, environment: Mapping[str, str]) -> Sequence[sa.MetaData]:
        """Return the tables of the views' own, without a tenant's schema and prefix; connects to no database."""
        return [tables for each in self if (tables := _own_tables(each, environment)) is not None]


def _own_tables(registered: RegisteredProjection, environment: Mapping[str, str]) -> sa.MetaData | None:
    plain = {
        "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
        "CREATE_TABLE": "no",
        "SQLALCHEMY_SCHEMA": "",
        "SQLALCHEMY_TABLE_PREFIX": "",
    }
    env = Environment(registered.projection.name, {**environment, **plain})
    with closing(InfrastructureFactory.construct(env)) as factory:
        return getattr(factory.tracking_recorder(registered.view), "own_tables", None)


def check_registered(application: type[Application[Any]], applications: Mapping[str, type[Application[Any]]]) -> None:
    """Raise NotRegistered for an application that is not part of the fleet."""
    if applications.get(application.name) is not application:
        msg = f"Application {application.name!r} ({get_topic(application)}) is not registered with this Tenancy."
        raise NotRegistered(msg, remedy="Pass its class to Tenancy(applications=[...]).")


def name_taken(projection: type[Projection[Any]]) -> TenancyError:
    """Return the error for the name of a projection that an application or another projection has."""
    msg = f"The projection name {projection.name!r} is taken by an application or another projection."
    return TenancyError(msg, remedy="Rename it: their tables would be the same.")


class TenantProjection:
    """A projection of one tenant with its view."""

    def __init__(self, registered: RegisteredProjection, process: Mapping[str, str], env: Mapping[str, str]) -> None:
        # Unlike an application, a factory does not add the process's environment.
        factory: InfrastructureFactory[Any] = InfrastructureFactory.construct(
            Environment(registered.projection.name, {**process, **env})
        )
        self.view = factory.tracking_recorder(registered.view)
        self.projection = registered.projection(self.view)
        self.closing = threading.Event()
        # Tied to the view, because a caller may keep only the view.
        self._close = weakref.finalize(self.view, factory.close)

    def __repr__(self) -> str:
        return f"TenantProjection({type(self.projection).__name__}, view={self.view!r})"

    def close(self) -> None:
        """Release the engine."""
        self.closing.set()
        self._close()
