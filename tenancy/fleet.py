"""The wiring of a fleet: construct the parts that the facade, the runner and the operations share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from eventsourcing_sqlalchemy import migrations
from tenancy.application_cache import ApplicationCache, TenantProjection
from tenancy.errors import TenancyClosed
from tenancy.isolation.environment import local_variables, variables
from tenancy.lifecycle.completion import Completion
from tenancy.lifecycle.hooks import Hooks
from tenancy.lifecycle.provisioning import Provisioning
from tenancy.lifecycle.purging import Purging
from tenancy.lifecycle.reactions import Reactions
from tenancy.lifecycle.transitions import Transitions
from tenancy.lifecycle.updates import Updates
from tenancy.migrations.requirement import Requirement, requirement_of
from tenancy.model.application_spec import ApplicationSpec, application_spec_of, by_name
from tenancy.model.projections import (
    Projections,
    RegisteredProjection,
    check_registered,
    name_taken,
)
from tenancy.model.tenant import Tenant, TenantStatus, check_status
from tenancy.model.versions import Versions
from tenancy.registry.cache import acquire_registry_cache
from tenancy.settings import TenancySettings
from tenancy.storage.cross_tenant import CrossTenantProjection, CrossTenantProjections
from tenancy.storage.inventory import ShardInventory
from tenancy.storage.migrator import Migrator
from tenancy.storage.provisioner import Provisioner
from tenancy.storage.remover import Remover
from tenancy.storage.shard import Shard
from tenancy.storage.usage import FleetUsage

if TYPE_CHECKING:
    from eventsourcing.application import Application
    from eventsourcing.projection import Projection
    from eventsourcing.system import System

    from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder

__all__ = ["Fleet"]

_TApplication = TypeVar("_TApplication", bound="Application[Any]")


class Fleet:
    """The parts of one fleet. Safe to use from many threads.

    It connects to no database until a part is used. Raises SettingsError for a missing or malformed variable.
    """

    def __init__(
        self,
        classes: Iterable[type[Application[Any]]],
        system: System | None = None,
        env: Mapping[str, str] | None = None,
        code_version: str | None = None,
    ) -> None:
        self.settings = TenancySettings.read(env)
        self.code_version = code_version
        """The version of the user's code, for the record of jobs."""
        self.system = system
        self.applications: Mapping[str, type[Application[Any]]] = by_name(classes)
        """The application classes by name."""
        self.projections = Projections()
        self._requirements: dict[str, Requirement | None] = {}
        self._specs: Sequence[ApplicationSpec] | None = None
        self.shard = Shard(self.settings)
        self._registry_reference = acquire_registry_cache(self.settings)
        self._registry_reference.release_when_collected(self)
        self.registry_cache = self._registry_reference.resource
        self.registry = self.registry_cache.registry
        self.inventory = ShardInventory(self.shard, self.registry.list)
        self.cross_tenant = CrossTenantProjections(self.settings, self.registry)
        self.application_cache = ApplicationCache(self.settings.max_applications)
        self.usage = FleetUsage(self.shard, self.registry, self.application_specs)
        self.provisioner = Provisioner(self.shard, self.inventory)
        self.migrator = Migrator(self.shard, self.application_specs)
        self.remover = Remover(self.shard, self.inventory)
        self.hooks = Hooks(self.registry)
        self.reactions = Reactions(self.registry)
        completion = Completion(
            self.registry,
            shard=self.shard,
            provisioner=self.provisioner,
            migrator=self.migrator,
            remover=self.remover,
            hooks=self.hooks,
            application_specs=self.application_specs,
            head=self.head_versions,
            changed=self.changed,
        )
        self.provisioning = Provisioning(
            self.settings,
            self.registry,
            shard=self.shard,
            inventory=self.inventory,
            completion=completion,
            hooks=self.hooks,
            reactions=self.reactions,
            application_specs=self.application_specs,
            head=self.head_versions,
        )
        self.transitions = Transitions(self.settings, self.registry, self.changed)
        self.updates = Updates(self.registry, self.changed)
        self.purging = Purging(
            self.registry,
            self.inventory,
            self.remover,
            application_specs=self._all_specs,
            cross_tenant=self.cross_tenant,
            changed=self.changed,
        )
        self.is_closed = False

    def close(self) -> None:
        """Close all applications and connections; idempotent."""
        if not self.is_closed:
            self.is_closed = True
            with ExitStack() as resources:  # also when an application's close() raises
                resources.callback(self._registry_reference.release)
                resources.callback(self.shard.close)
                resources.callback(self.cross_tenant.close)
                resources.callback(self.application_cache.close)

    def application_specs(self) -> Sequence[ApplicationSpec]:
        """Return the tables of each application and projection: of the classes, or without classes, of the registry."""
        if self._specs is None:
            if self.applications:
                environment = self.settings.environment
                follows = {} if self.system is None else self.system.follows
                specs = [
                    application_spec_of(cls, environment, follows.get(cls.name, ()))
                    for cls in self.applications.values()
                ]
                self._specs = [*specs, *self.projections.application_specs(environment)]
            else:
                self._specs = list(self._recorded_specs().values()) or None
        return self._specs or ()

    def _recorded_specs(self) -> dict[str, ApplicationSpec]:
        return {
            each["application"]: ApplicationSpec.from_json(each)
            for each in self.registry.fleet_settings().get("applications", [])
        }

    def _all_specs(self) -> Sequence[ApplicationSpec]:
        # Also applications that this process lacks: purging removes all of a tenant's tables.
        own = {spec.application: spec for spec in self.application_specs()}
        return list({**self._recorded_specs(), **own}.values())

    def head_versions(self) -> Versions:
        """Return the versions of the tables that this process creates."""
        created = sorted({name for spec in self.application_specs() for name in spec.table_names()})
        return Versions(tables=migrations.HEAD, created=tuple(created), views=self.projections.versions())

    def changed(self, tenant: Tenant) -> None:
        """Forget what this process has cached of a tenant: it has changed it."""
        self.registry_cache.forget(tenant.id)
        if tenant.status is TenantStatus.PURGING:
            self.application_cache.forget(tenant.id)

    def register_projection(self, registered: RegisteredProjection) -> None:
        """Register a projection; raises NotRegistered for the projection of another fleet's application."""
        if registered.projection.name in self.cross_tenant:
            raise name_taken(registered.projection)
        self.projections.register(registered, self.applications)
        self._specs = None

    def register_across(
        self,
        application: type[Application[Any]],
        projection: type[Projection[Any]],
        view: type[SQLAlchemyTrackingRecorder],
        url: str | None,
    ) -> None:
        """Register a projection over all tenants; raises NotRegistered for the application of another fleet."""
        check_registered(application, self.applications)
        if projection.name in {*self.applications, *(each.projection.name for each in self.projections)}:
            raise name_taken(projection)
        self.cross_tenant.register(application, projection, view, url)

    def across(self, projection: type[Projection[Any]]) -> CrossTenantProjection:
        """Return a registered projection over all tenants; raises NotRegistered."""
        if self.is_closed:
            raise TenancyClosed
        return self.cross_tenant.find(projection)

    def application(self, cls: type[_TApplication], tenant: Tenant) -> _TApplication:
        """Return a tenant's application, the same object to all callers; raises a TenantUnavailable."""
        self._admit(tenant, cls.name)
        return self.application_cache.get(cls, tenant.id, lambda: cls(env=self._local_env(tenant)))

    def projection(self, cls: type[Projection[Any]], tenant: Tenant) -> TenantProjection:
        """Return a tenant's projection with its view; raises as :meth:`application` does, and NotRegistered."""
        registered = self.projections.find(cls)
        self._admit(tenant, cls.name)
        process = self.settings.environment
        return self.application_cache.get(
            cls, tenant.id, lambda: TenantProjection(registered, process, self._local_env(tenant))
        )

    def _admit(self, tenant: Tenant, application: str) -> None:
        if self.is_closed:
            raise TenancyClosed
        self.check_revision(self.registry_cache.admit(tenant.id, writes=False), application)

    def check_serves(self, tenant: Tenant, *, as_operator: bool = False) -> None:
        """Raise a TenantUnavailable unless a tenant that was just looked up may be read by this code. Never waits."""
        if self.is_closed:
            raise TenancyClosed
        check_status(tenant, writes=False, as_operator=as_operator)
        self.check_revision(tenant)

    def check_revision(self, tenant: Tenant, application: str = "") -> None:
        """Raise TenantOutdated if the code of an application, or without one all code, needs a newer tenant."""
        if application not in self._requirements:
            self._requirements[application] = requirement_of(application, self.settings.environment)
        requirement = self._requirements[application]
        if requirement is not None:
            requirement.check(tenant)

    def _local_env(self, tenant: Tenant) -> dict[str, str]:
        return local_variables(self.settings, tenant.placement, tenant.id, self.application_specs())

    def env(self, tenant: Tenant) -> dict[str, str]:
        """Return the variables that put another process's applications into a tenant's tables."""
        return variables(self.settings, tenant.placement, tenant.id, self.application_specs())
