"""The front door of the package: one object for a fleet of tenants that have the same applications.

By convention the variable is called ``tenants``, so that the calls read as English: ``tenants.suspend("acme")``.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import TrackingRecorder
from eventsourcing.projection import Projection
from eventsourcing.system import System
from eventsourcing.utils import get_topic

from tenancy import context
from tenancy.application_cache import ApplicationCache
from tenancy.arguments import check_class, check_list, check_type
from tenancy.errors import InvalidArgument, NotRegistered, TenancyClosed, TenancyError
from tenancy.isolation.names import variables
from tenancy.lifecycle.provisioning import Provisioning, TenantRequest
from tenancy.lifecycle.purging import Purging
from tenancy.lifecycle.transitions import Transitions, known_slug, not_found
from tenancy.model.application_spec import ApplicationSpec, application_spec_of, by_name
from tenancy.model.projections import Projections, RegisteredProjection, TenantProjection
from tenancy.model.tenant import Placement, Tenant, TenantStatus, check_status
from tenancy.registry.cache import lease_registry
from tenancy.settings import TenancySettings
from tenancy.storage.tenant_storage import TenantStorage
from tenancy.verbs import Verbs

if TYPE_CHECKING:
    from tenancy.registry.registry import Change
    from tenancy.runner import FollowerMonitor, Runner

__all__ = ["Tenancy"]

_TApplication = TypeVar("_TApplication", bound="Application[Any]")


class Tenancy(Verbs):
    """Many tenants, each with its own tables for the same applications. Safe to use from many threads.

    ``applications`` are classes, ``system`` brings those of its pipes. ``env`` takes precedence over the environment of
    the process, also for applications. Without applications and system, what needs no code works: the registry has it.

    Nothing is asked of a database until the first call. Raises SettingsError for a missing or malformed variable. All
    methods raise InvalidArgument for an argument of another type, and TenancyClosed after close().
    """

    def __init__(
        self,
        *,
        applications: Iterable[type[Application[Any]]] = (),
        system: System | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        check_list("applications", applications, "a list: Tenancy(applications=[Kennels])")
        classes = list(applications)
        for each in classes:
            check_class("An application", each, Application, "its class: Tenancy(applications=[Kennels])")
        if system is not None:
            check_type("system", system, System, "a System: Tenancy(system=System(pipes=[[Kennels, Reports]]))")
            classes += [system.get_app_cls(name) for name in system.nodes]
        if env is not None:
            check_type("env", env, Mapping, 'variables: Tenancy(env={"SQLALCHEMY_URL": "..."})')
            for value in env.values():
                check_type("A variable of env", value, str, "all values as text")
        self.settings = TenancySettings.read(env)
        self.system = system
        self.applications: Mapping[str, type[Application[Any]]] = by_name(classes)
        """The classes, by the names of the applications."""
        self.projections = Projections()
        self._known: Sequence[ApplicationSpec] | None = None
        self.storage = TenantStorage(self.settings)
        """What the tenants have in the database."""
        self._registry_cache = lease_registry(self.settings)
        # For a fleet that nobody closes.
        self._giving_back = weakref.finalize(self, self._registry_cache.abandon)
        self._giving_back.atexit = False
        self.registry = self._registry_cache.registry
        self._where = str(self.registry)
        self._application_cache = ApplicationCache(self.settings.max_applications)
        self._provisioning = Provisioning(
            self.settings, self.registry, self.storage, self.application_specs, self._changed
        )
        self._transitions = Transitions(self.settings, self.registry, self._changed)
        self._purging = Purging(self.registry, self.storage, self._all_specs, self._changed)

    def __repr__(self) -> str:
        state = "; closed" if self.is_closed else ""
        return f"Tenancy({', '.join(self.applications) or 'no applications'}; {self._where}{state})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all applications that were handed out, and the connections; a second time does nothing."""
        if not self.is_closed:
            registry_cache = self._registry_cache
            self.is_closed = True
            self._application_cache.close()
            self.storage.close()
            if self._giving_back.detach() is not None:
                registry_cache.release()

    def application_specs(self) -> Sequence[ApplicationSpec]:
        """Return which tables the applications have: by the classes, or without classes, by the registry."""
        if self._known is None:
            if self.applications:
                environment = self.settings.environment
                follows = {} if self.system is None else self.system.follows
                known = [
                    application_spec_of(cls, environment, follows.get(cls.name, ()))
                    for cls in self.applications.values()
                ]
                self._known = [*known, *self.projections.application_specs(environment)]
            else:
                self._known = list(self._recorded_specs().values()) or None
        return self._known or ()

    def _recorded_specs(self) -> dict[str, ApplicationSpec]:
        return {
            each["application"]: ApplicationSpec.from_json(each)
            for each in self.registry.fleet_settings().get("applications", [])
        }

    def _all_specs(self) -> Sequence[ApplicationSpec]:
        # Also of applications that this process does not have: a tenant is removed whole.
        own = {application_spec.application: application_spec for application_spec in self.application_specs()}
        return list({**self._recorded_specs(), **own}.values())

    def _changed(self, tenant: Tenant) -> None:
        self._registry_cache.forget(tenant.id)
        if tenant.status is TenantStatus.PURGING:
            self._application_cache.forget(tenant.id)

    def _bound(self, tenant: Tenant) -> Tenant:
        return replace(tenant, tenancy=self)

    # -- making --

    def init(self, *, accept_encodings: bool = False) -> None:
        """Make the registry where there is none, and record the applications and their tables. ``create`` does so too.

        ``accept_encodings`` records the ciphers and compressors of this process in place of those of the fleet. They
        have to read what is stored.

        Needs the right to create a schema, or tables where there are no schemas. Safe to call again, and from many
        processes at once. Raises EncodingMismatch.
        """
        self._provisioning.init(accept_encodings=accept_encodings)

    def create(
        self,
        slug: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        actor: str | None = None,
        exist_ok: bool = False,
        request_id: str | None = None,
    ) -> Tenant:
        """Make a tenant with its tables, and return it when it serves.

        ``name`` (by default the slug as it is written here) and ``metadata`` (what JSON can hold) are yours to use.
        ``actor`` is the id of who did it, for the history; not a name, which could not be erased. A retry with the same
        ``request_id`` returns the same tenant.

        Raises TenantExists when the slug is taken, unless ``exist_ok``; and InvalidSlug.
        """
        self._check_applications()
        request = TenantRequest(
            slug=slug, name=name, metadata={} if metadata is None else metadata, request_id=request_id
        )
        return self._bound(self._provisioning.create(request, actor, exist_ok=exist_ok))

    def create_many(
        self, tenants: Iterable[str | TenantRequest], *, actor: str | None = None, exist_ok: bool = False
    ) -> Iterator[Tenant]:
        """Make tenants and yield each when it serves; much faster than one by one.

        Raises TenantExists at the first slug that is taken, unless ``exist_ok``; those yielded before are made.
        """
        check_list("The tenants", tenants, 'a list: create_many(["acme", "globex"])')
        self._check_applications()
        for tenant in self._provisioning.create_many(map(_order, tenants), actor, exist_ok=exist_ok):
            yield self._bound(tenant)

    def complete(self, tenant: Tenant | str, *, actor: str | None = None) -> Tenant:
        """Let a tenant serve whose making somebody has begun and not ended; nothing for any other one."""
        (completed,) = self._provisioning.complete([self._meant(tenant)], actor)
        return self._bound(completed)

    def create_missing(self, tenant: Tenant | str) -> None:
        """Make the tables that a tenant lacks; nothing for one that is being made or purged."""
        self._provisioning.create_missing(self._meant(tenant))

    def adopt(
        self,
        slug: str,
        *,
        schema: str | None = None,
        table_prefix: str = "",
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        actor: str | None = None,
    ) -> Tenant:
        """Register tables that exist as a tenant; nothing is copied or changed. Both names may hold ``{application}``.

        Raises TenantExists, and TenancyError when a table is missing or another tenant's.
        """
        self._check_applications()
        request = TenantRequest(slug=slug, name=name, metadata={} if metadata is None else metadata)
        return self._bound(self._provisioning.adopt(request, Placement(schema or None, table_prefix), actor))

    def _check_applications(self) -> None:
        if not self.application_specs():
            msg = "The applications of the tenants are not known, so their tables cannot be made."
            raise TenancyError(msg, remedy="Give them once: Tenancy(applications=[...]), or --app on the command line.")

    def project(
        self, application: type[Application[Any]], projection: type[Projection[Any]], view: type[TrackingRecorder]
    ) -> None:
        """Register a projection, before anything else is called: new tenants get the tables of its view, and runners
        keep it. Raises NotRegistered for an application that the tenants do not have.
        """
        check_class("The application", application, Application, "its class")
        check_class("The projection", projection, Projection, "its class")
        check_class("The view", view, TrackingRecorder, "the class of the views, which are TrackingRecorders")
        self.projections.register(RegisteredProjection(application, projection, view), self.applications)
        self._known = None

    # -- following --

    def runner(self, workers: int = 4, **options: Any) -> Runner:
        """Return what lets the followers and projections of all tenants process events; use it in a ``with`` statement.

        Processes that do so share the tenants. For the ``options`` see :class:`Runner`.
        """
        from tenancy.runner import Runner  # noqa: PLC0415 (most processes have none)

        return Runner(self, self._registry_cache, self._application_cache, workers=workers, **options)

    @property
    def followers(self) -> FollowerMonitor:
        """What can be asked of followers, and told to them, wherever they run."""
        from tenancy.runner import FollowerMonitor  # noqa: PLC0415 (as above)

        return FollowerMonitor(self.registry, self.storage, self.application_specs())

    # -- finding --

    def __getitem__(self, slug: str) -> Tenant:
        """Return a tenant, whatever its status; raises TenantNotFound."""
        tenant = self._registry_cache.find(known_slug(slug))
        if tenant is None:
            raise not_found(slug)
        return self._bound(tenant)

    def recall(self, slug: str) -> Tenant | None:
        """Return a tenant as ``tenants[slug]`` does, without waiting; None when the registry has to be asked.

        Raises TenantNotFound for a slug that is known to be nobody's.
        """
        is_known, tenant = self._registry_cache.recall(known_slug(slug))
        if not is_known:
            return None
        if tenant is None:
            raise not_found(slug)
        return self._bound(tenant)

    def __contains__(self, slug: object) -> bool:
        try:
            return isinstance(slug, str) and bool(self[slug])
        except LookupError:
            return False

    def __iter__(self) -> Iterator[Tenant]:
        """Yield all tenants in the order of their slugs."""
        return iter(self.list())

    def list(self, status: TenantStatus | str | None = None) -> Sequence[Tenant]:
        """Return all tenants, or those with a status, in the order of their slugs."""
        try:
            wanted = None if status is None else TenantStatus(status)
        except ValueError:
            msg = f"There is no status {status!r}."
            raise InvalidArgument(msg, remedy=f"Pass one of: {', '.join(TenantStatus)}.") from None
        return [self._bound(tenant) for tenant in self.registry.list(wanted)]

    def slugs(self) -> Sequence[str]:
        """Return the slugs of all tenants, in no order."""
        return self.registry.slugs()

    def history(self, slug: str) -> Sequence[Change]:
        """Return what happened to a tenant, the oldest first. A purged one is found by its id alone."""
        check_type("The slug", slug, str, "the tenant's slug, or its id as text")
        try:
            tenant_id = UUID(slug)
        except ValueError:
            tenant_id = self[slug].id
        else:
            tenant = self._registry_cache.find(known_slug(slug))
            tenant_id = tenant.id if tenant is not None else tenant_id
        changes = self.registry.history(tenant_id)
        if not changes:
            raise not_found(slug)
        return changes

    # -- using --

    def application(self, cls: type[_TApplication], tenant: Tenant | str | None = None) -> _TApplication:
        """Return the application of a tenant, or of the current one; the same object to all callers.

        It need not be closed. Raises a TenantUnavailable when the tenant does not serve, NotRegistered for an
        application that the tenants do not have, and NoCurrentTenant.
        """
        check_class("The application", cls, Application, "its class, as in tenants[slug].get(Kennels)")
        if self.applications.get(cls.name) is not cls:
            msg = f"The application {cls.name!r} ({get_topic(cls)}) is none of these tenants'."
            raise NotRegistered(msg, remedy="Give its class to Tenancy(applications=[...]) and call init().")
        found = self.current if tenant is None else self._meant(tenant)
        self._registry_cache.admit(found.id, writes=False)
        return self._application_cache.get(cls, found.id, lambda: cls(env=self.env(found)))

    def projection(self, cls: type[Projection[Any]], tenant: Tenant | str | None = None) -> TenantProjection:
        """Return a tenant's projection, or that of the current one, with its ``view``; raises as :func:`application`
        does.
        """
        check_class("The projection", cls, Projection, "its class")
        registered = self.projections.find(cls)
        found = self.current if tenant is None else self._meant(tenant)
        self._registry_cache.admit(found.id, writes=False)
        process = self.settings.environment
        return self._application_cache.get(
            cls, found.id, lambda: TenantProjection(registered, process, self.env(found))
        )

    def env(self, tenant: Tenant | str) -> dict[str, str]:
        """Return the variables that put the applications of a process into a tenant's tables, also those that the
        library's runners make: ``SingleThreadedRunner(system, env=tenants.env("acme"))``.

        They hold the URL of the database, with its password.
        """
        found = self._meant(tenant)
        return variables(self.settings, found.placement, found.id, self.application_specs())

    def scope(self, tenant: Tenant | str) -> AbstractContextManager[None]:
        """Return a context in which a tenant is the current one; raises a TenantUnavailable at once when it cannot be
        read.
        """
        found = self._meant(tenant)
        check_status(found, writes=False)
        return context.scope(self, found.id)

    def _meant(self, tenant: Tenant | str) -> Tenant:
        if isinstance(tenant, str):
            return self[tenant]
        check_type("The tenant", tenant, Tenant, "its slug or a Tenant")
        if self.is_closed:
            raise TenancyClosed
        return tenant

    @property
    def current(self) -> Tenant:
        """The tenant of this context; raises NoCurrentTenant where there is none."""
        tenant_id = context.current_id(self)
        tenant = self._registry_cache.get(tenant_id)
        if tenant is None:
            self._registry_cache.admit(tenant_id, writes=False)
            raise not_found(str(tenant_id))
        return self._bound(tenant)


def _order(wanted: str | TenantRequest) -> TenantRequest:
    if isinstance(wanted, str):
        return TenantRequest(slug=wanted)
    check_type("A tenant", wanted, TenantRequest, "its slug or an Order")
    return wanted
