"""The facade: one object for a fleet of tenants that have the same applications.

By convention the variable is called ``tenants``, so that calls read as English: ``tenants.suspend("acme")``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import TrackingRecorder
from eventsourcing.projection import Projection
from eventsourcing.system import System
from eventsourcing.utils import get_topic

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import context
from tenancy.application_cache import TenantProjection
from tenancy.arguments import check_class, check_list, check_type
from tenancy.errors import NotRegistered, TenancyClosed, TenancyError
from tenancy.fleet import Fleet
from tenancy.lifecycle.domains import Domains
from tenancy.lifecycle.operators import operator_scope
from tenancy.lifecycle.purging import PurgeCertificate
from tenancy.metering.source import topic_of
from tenancy.model.application_spec import ApplicationSpec
from tenancy.model.placement import Placement
from tenancy.model.projections import RegisteredProjection
from tenancy.model.quotas import Quotas
from tenancy.model.tenant import Action, Tenant, TenantRequest, TenantStatus
from tenancy.model.usage import Usage
from tenancy.registry.lookup import find_tenant, known_slug, not_found
from tenancy.registry.queries import Order, TenantQuery, find_tenants
from tenancy.settings import TenancySettings
from tenancy.storage.cross_tenant import CrossTenantProjection

if TYPE_CHECKING:
    from tenancy.lifecycle.hooks import Hook
    from tenancy.lifecycle.reaction_monitor import ReactionMonitor
    from tenancy.lifecycle.reactions import Reaction, ReactionReport
    from tenancy.operations.health import Health, HealthChecks
    from tenancy.operations.jobs import JobOptions, JobReport, Jobs, TenantSelection
    from tenancy.registry.registry import Change
    from tenancy.runner import FollowerMonitor, Runner

__all__ = ["Tenancy"]

_TApplication = TypeVar("_TApplication", bound="Application[Any]")
_THook = TypeVar("_THook", bound="Hook")
_TReaction = TypeVar("_TReaction", bound="Reaction")


class Tenancy:
    """Many tenants, each with its own tables for the same applications. Safe to use from many threads.

    ``applications`` are classes; ``system`` adds the applications of its pipes. ``env`` takes precedence over the
    process's environment, also for applications. Without applications and system, everything works that needs no code:
    the registry has recorded the tables. ``code_version`` names the version of your code, for the record of jobs.

    ``migrations`` is the directory of the Alembic migrations of your own tables. ``requires`` is the revision that a
    tenant needs to be served, or one for each class of an application or projection: others raise TenantOutdated.
    ``quotas`` is a function that returns a tenant's quotas, instead of those in its metadata; see the page "Usage and
    quotas".

    The constructor connects to no database. It raises SettingsError for a missing or malformed variable. All methods
    raise InvalidArgument for an argument of the wrong type, and TenancyClosed after close(). Methods that take a tenant
    accept its slug, which means the tenant that has this slug now, or a Tenant, which means exactly that one. They
    raise TenantNotFound, and TransitionRefused where a change does not apply to the tenant's status. ``actor`` is the
    id of the user who makes the change, for the history.
    """

    def __init__(
        self,
        *,
        applications: Iterable[type[Application[Any]]] = (),
        system: System | None = None,
        env: Mapping[str, str] | None = None,
        migrations: str | PathLike[str] | None = None,
        requires: str | Mapping[type[Application[Any] | Projection[Any]], str] | None = None,
        code_version: str | None = None,
        quotas: Callable[[Tenant], Quotas | None] | None = None,
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
        if code_version is not None:
            check_type("code_version", code_version, str, 'a text: Tenancy(code_version="2.1")')
        self._fleet = Fleet(classes, system, {**(env or {}), **_variables(migrations, requires, quotas)}, code_version)
        self._registry_name = str(self._fleet.registry)
        self._health_checks: HealthChecks | None = None
        for callbacks in (self._fleet.hooks, self._fleet.reactions):
            callbacks.serve(self)

    def __repr__(self) -> str:
        state = "; closed" if self.is_closed else ""
        return f"Tenancy({', '.join(self.applications) or 'no applications'}; {self._registry_name}{state})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all applications that were handed out, and the connections; idempotent."""
        self._fleet.close()

    @property
    def is_closed(self) -> bool:
        """Whether close() has been called."""
        return self._fleet.is_closed

    @property
    def fleet(self) -> Fleet:
        """The parts of the fleet, for this package's operations and commands; not a stable interface."""
        if self._fleet.is_closed:
            raise TenancyClosed
        return self._fleet

    @property
    def settings(self) -> TenancySettings:
        """The settings, with secrets in their URLs."""
        return self._fleet.settings

    @property
    def applications(self) -> Mapping[str, type[Application[Any]]]:
        """The application classes by name."""
        return self._fleet.applications

    def application_specs(self) -> Sequence[ApplicationSpec]:
        """Return the tables of each application and projection: of the classes, or without classes, of the registry."""
        return self.fleet.application_specs()

    def _bound(self, tenant: Tenant) -> Tenant:
        return replace(tenant, tenancy=self)

    # -- creating --

    def init(self, *, accept_encodings: bool = False) -> None:
        """Create the registry if it is missing, and record the applications and their tables. ``create`` does so too.

        ``accept_encodings`` replaces the fleet's recorded ciphers and compressors with those of this process, which
        must be able to read the stored events.

        Requires the right to create a schema, or tables where the database has no schemas. Idempotent, and safe in many
        processes at once. Raises EncodingMismatch.
        """
        self.fleet.provisioning.init(accept_encodings=accept_encodings)

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
        """Create a tenant with its tables, and return it once it is active.

        ``name`` (default: the slug as written here) and ``metadata`` (any JSON object up to 64 KiB) are yours to use.
        ``actor`` must be an id, not a name: the history is never erased. A retry with the same ``request_id`` returns
        the same tenant.

        Raises TenantExists when the slug is taken, unless ``exist_ok``; and InvalidSlug.
        """
        self._check_applications()
        request = TenantRequest(
            slug=slug, name=name, metadata={} if metadata is None else metadata, request_id=request_id
        )
        return self._bound(self.fleet.provisioning.create(request, actor, exist_ok=exist_ok))

    def create_many(
        self, tenants: Iterable[str | TenantRequest], *, actor: str | None = None, exist_ok: bool = False
    ) -> Iterator[Tenant]:
        """Create tenants in batches, which is much faster than one by one, and yield each once it is active.

        Raises TenantExists at the first slug that is taken, unless ``exist_ok``; tenants yielded before it remain.
        """
        check_list("The tenants", tenants, 'a list: create_many(["acme", "globex"])')
        self._check_applications()
        for tenant in self.fleet.provisioning.create_many(map(_request, tenants), actor, exist_ok=exist_ok):
            yield self._bound(tenant)

    def complete(self, tenant: Tenant | str, *, actor: str | None = None) -> Tenant:
        """Finish creating a tenant whose creation was interrupted; do nothing for any other tenant."""
        (completed,) = self.fleet.provisioning.complete([self._resolve(tenant)], actor)
        return self._bound(completed)

    def create_missing(self, tenant: Tenant | str) -> None:
        """Create the tables that a tenant lacks; do nothing for one that is being created or purged."""
        self.fleet.provisioning.create_missing(self._resolve(tenant))

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
        """Register existing tables as a tenant; nothing is copied or changed.

        ``schema`` and ``table_prefix`` may contain ``{application}``. Raises TenantExists, and TenancyError when a
        table is missing or belongs to another tenant.
        """
        self._check_applications()
        request = TenantRequest(slug=slug, name=name, metadata={} if metadata is None else metadata)
        return self._bound(self.fleet.provisioning.adopt(request, Placement(schema or None, table_prefix), actor))

    def _check_applications(self) -> None:
        if not self.application_specs():
            msg = "The fleet has no applications, so tenant tables cannot be created."
            raise TenancyError(msg, remedy="Pass them once: Tenancy(applications=[...]), or --app on the command line.")

    def project(
        self, application: type[Application[Any]], projection: type[Projection[Any]], view: type[TrackingRecorder]
    ) -> None:
        """Register a projection: new tenants get the tables of its view, and runners keep the view up to date.

        Call it before any other method. Raises NotRegistered for an application that is not part of this fleet.
        """
        check_class("The application", application, Application, "its class")
        check_class("The projection", projection, Projection, "its class")
        check_class("The view", view, TrackingRecorder, "a class of TrackingRecorder")
        self.fleet.register_projection(RegisteredProjection(application, projection, view))

    def project_across(
        self,
        application: type[Application[Any]],
        projection: type[Projection[Any]],
        view: type[SQLAlchemyTrackingRecorder],
        *,
        url: str | None = None,
    ) -> None:
        """Register a projection over all tenants: one view, which runners feed with the events of every tenant.

        The view's tables are beside the registry, or in the database of ``url``, in the schema of
        TENANCY_CONTROL_SCHEMA. It needs a method ``forget(tenant)``, which deletes a purged tenant's rows. The
        projection gets each event with a :class:`TenantTracking`, whose ``tenant`` has recorded it. Register the same
        projection again for each further application that it follows.

        Call it before any other method. Raises NotRegistered for an application that is not part of this fleet.
        """
        check_class("The application", application, Application, "its class")
        check_class("The projection", projection, Projection, "its class")
        check_class("The view", view, SQLAlchemyTrackingRecorder, "a class of SQLAlchemyTrackingRecorder")
        self.fleet.register_across(application, projection, view, url)

    @overload
    def on_created(self, function: _THook, /) -> _THook: ...

    @overload
    def on_created(self, /, *, name: str) -> Callable[[_THook], _THook]: ...

    def on_created(self, function: _THook | None = None, /, *, name: str | None = None) -> Any:
        """Register a function that prepares each new tenant before it serves, as a decorator.

        It gets the Tenant, whose applications it may use; the tenant is the current one. It runs in the process that
        creates the tenant. If it fails, :meth:`create` raises HookFailed, and the tenant stays in provisioning until a
        retry or ``tenancy doctor --repair``. It does not run again once the registry has recorded that it has run,
        under ``name`` (default: the name of the function). Adopted tenants have their data already and get none.

        Call it before any other method.
        """
        hooks = self.fleet.hooks

        def register(registered: _THook) -> _THook:
            hooks.register(registered, name)
            return registered

        return register if function is None else register(function)

    def after(self, *events: str, name: str | None = None) -> Callable[[_TReaction], _TReaction]:
        """Register a function that gets lifecycle events after the fact, as a decorator: a reaction.

        ``events`` are some of activated, suspended, resumed, renamed, updated, archived, restored, deleted, undeleted
        and purged; by default all. The function gets a LifecycleEvent, in a runner or in :meth:`react`: each event at
        least once, and those of one tenant in order. ``name`` (default: the name of the function) is what the registry
        records. A new reaction gets the changes that follow when it is first recorded: by :meth:`init`, by a create,
        or by a runner.

        Call it before any other method.
        """
        reactions = self.fleet.reactions
        reactions.check_events(events)

        def register(function: _TReaction) -> _TReaction:
            reactions.register(function, name, events)
            return function

        return register

    # -- lifecycle --

    def rename(
        self, tenant: str | Tenant, new_slug: str | None = None, *, name: str | None = None, actor: str | None = None
    ) -> Tenant:
        """Change a tenant's slug, name or both. Its id and its tables keep their names."""
        return self._bound(self.fleet.transitions.rename(tenant, new_slug, name, actor))

    def update(
        self,
        tenant: str | Tenant,
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        unset: Iterable[str] = (),
        replace: bool = False,
        actor: str | None = None,
    ) -> Tenant:
        """Change a tenant's name and metadata; in force in every process within a second.

        ``metadata`` sets its keys and keeps the others, or with ``replace`` becomes the whole metadata. Keys in
        ``unset`` are removed. The history records the keys, never the values. Raises InvalidArgument as :meth:`create`.
        """
        updates = self.fleet.updates
        return self._bound(
            updates.update(tenant, name=name, metadata=metadata, unset=unset, replace=replace, actor=actor)
        )

    def suspend(
        self, tenant: str | Tenant, *, reason: str | None = None, reads: bool | None = None, actor: str | None = None
    ) -> Tenant:
        """Refuse a tenant's writes, and its reads unless ``reads``; every process complies within a second.

        Errors show the ``reason``, HTTP responses never do. For a tenant that is already suspended, None keeps the
        current value.
        """
        return self._bound(self.fleet.transitions.move(tenant, Action.SUSPEND, actor, reason=reason, reads=reads))

    def resume(self, tenant: str | Tenant, *, actor: str | None = None) -> Tenant:
        """Resume a suspended tenant."""
        return self._bound(self.fleet.transitions.move(tenant, Action.RESUME, actor))

    def archive(self, tenant: str | Tenant, *, reason: str | None = None, actor: str | None = None) -> Tenant:
        """Take a tenant offline and keep its data."""
        return self._bound(self.fleet.transitions.move(tenant, Action.ARCHIVE, actor, reason=reason))

    def restore(self, tenant: str | Tenant, *, actor: str | None = None) -> Tenant:
        """Restore an archived tenant to its previous status."""
        return self._bound(self.fleet.transitions.move(tenant, Action.RESTORE, actor))

    def delete(self, tenant: str | Tenant, *, reason: str | None = None, actor: str | None = None) -> Tenant:
        """Take a tenant offline. It can be undeleted until it is purged, which is due after TENANCY_GRACE_DAYS."""
        return self._bound(self.fleet.transitions.move(tenant, Action.DELETE, actor, reason=reason))

    def undelete(self, tenant: str | Tenant, *, actor: str | None = None) -> Tenant:
        """Restore a deleted tenant to its previous status."""
        return self._bound(self.fleet.transitions.move(tenant, Action.UNDELETE, actor))

    def purge(self, tenant: str | Tenant, *, actor: str | None = None) -> PurgeCertificate:
        """Remove a tenant and all its data permanently; return the certificate.

        A slug means the tenant that has it now, whatever its status. A Tenant must still have the same status: raises
        TransitionRefused when it has been undeleted, for example.
        """
        (certificate,) = self.fleet.purging.purge([tenant], actor)
        return certificate

    def purge_many(self, tenants: Sequence[str | Tenant], *, actor: str | None = None) -> Iterator[PurgeCertificate]:
        """Purge tenants as :meth:`purge` does, and yield the certificate of each."""
        yield from self.fleet.purging.purge(tenants, actor)

    def due(self) -> Sequence[Tenant]:
        """Return the deleted tenants whose grace period is over."""
        return [self._bound(tenant) for tenant in self.fleet.purging.due()]

    @property
    def domains(self) -> Domains:
        """The custom host names of the tenants."""
        return Domains(self.fleet.registry_cache, self.fleet.changed, self._bound)

    # -- followers --

    def runner(self, workers: int = 4, *, lease_seconds: float = 10.0, max_attempts: int = 8) -> Runner:
        """Return a runner for the followers and projections of all tenants; use it in a ``with`` statement.

        Processes that run one share the tenants. ``workers`` is the number of threads. ``lease_seconds`` is how long a
        silent process keeps its tenants before others take them over. A follower that fails ``max_attempts`` times at
        one notification, with growing pauses, is quarantined.
        """
        from tenancy.runner import Runner  # noqa: PLC0415 (most processes have none)

        return Runner(self.fleet, workers=workers, lease_seconds=lease_seconds, max_attempts=max_attempts)

    @property
    def followers(self) -> FollowerMonitor:
        """Inspect and control followers, whichever process runs them."""
        from tenancy.runner import FollowerMonitor  # noqa: PLC0415 (as above)

        return FollowerMonitor(
            self.fleet.registry, self.fleet.shard, self.fleet.application_specs(), self.fleet.cross_tenant
        )

    def react(self) -> ReactionReport:
        """Call the reactions for all lifecycle events that wait, in this thread, and retry failures that are due.

        A runner does so continuously. One process of the fleet reacts at a time: if another one does, this call does
        nothing, and the report names it. A reaction that fails does not raise: see the report.
        """
        from tenancy.lifecycle.reactions import Reactor  # noqa: PLC0415 (as above)

        return Reactor(self.fleet.registry, self.fleet.reactions).react()

    @property
    def reactions(self) -> ReactionMonitor:
        """Inspect and control reactions, whichever process calls them."""
        from tenancy.lifecycle.reaction_monitor import ReactionMonitor  # noqa: PLC0415 (as above)

        return ReactionMonitor(self.fleet.registry, self.fleet.reactions)

    def migrate(
        self,
        *,
        tenants: TenantSelection | None = None,
        options: JobOptions | None = None,
        lock_timeout: float = 0.5,
        to: str = "heads",
        actor: str | None = None,
    ) -> JobReport:
        """Migrate the registry, and the tables of the tenants that are behind, in this process; return the job's end.

        ``tenants`` are by default all. An attempt waits ``lock_timeout`` seconds for a lock, and is repeated after
        growing pauses, so that a long reader delays no writer for longer. ``to`` is the revision that your own tables
        are migrated to, up or down; by default the newest of each branch. A tenant that fails does not raise: see the
        report. Safe in many processes at once. Raises RegistryMissing, and RegistryMismatch for a registry of a newer
        format.
        """
        from tenancy.operations.migrations import migrate  # noqa: PLC0415 (most processes migrate nothing)

        check_type("lock_timeout", lock_timeout, (int, float), "a number of seconds")
        return migrate(self.fleet, tenants=tenants, options=options, lock_timeout=lock_timeout, to=to, actor=actor)

    @property
    def jobs(self) -> Jobs:
        """Run, inspect and control jobs: operations over many tenants, whichever process executes them."""
        from tenancy.operations.jobs import Jobs  # noqa: PLC0415 (most processes run none)

        return Jobs(self.fleet)

    def rebuild(
        self,
        projection: type[Projection[Any]],
        *,
        tenants: TenantSelection | None = None,
        keep_old: bool = False,
        workers: int = 4,
        options: JobOptions | None = None,
        actor: str | None = None,
    ) -> JobReport:
        """Rebuild the views of a projection in this process, one tenant after the other; return how the job has ended.

        New tables are filled beside the serving ones and replace them at the end; see the page "Projections".
        ``tenants`` are by default all that are active or suspended. With ``keep_old``, the replaced tables are kept
        until :meth:`drop_replaced` or the next rebuild. ``workers`` is the number of workers of the runners that serve
        the fleet: for every eight, all jobs together rebuild one tenant at a time, and at least one. An item that fails
        does not raise: see the report. Raises NotRegistered.
        """
        from tenancy.operations.rebuilding import Rebuild  # noqa: PLC0415 (most processes rebuild nothing)

        name = self._projection_name(projection)
        parameters = {"projection": name, "keep_old": keep_old, "actor": actor, "workers": workers}
        return self.jobs.run(Rebuild, parameters, tenants=tenants, options=options, actor=actor)

    def drop_replaced(
        self,
        projection: type[Projection[Any]],
        *,
        tenants: TenantSelection | None = None,
        options: JobOptions | None = None,
        actor: str | None = None,
    ) -> JobReport:
        """Drop the tables that :meth:`rebuild` has replaced and kept; return how the job has ended.

        Raises NotRegistered.
        """
        from tenancy.operations.rebuilding import DropReplaced  # noqa: PLC0415 (as above)

        parameters = {"projection": self._projection_name(projection)}
        return self.jobs.run(DropReplaced, parameters, tenants=tenants, options=options, actor=actor)

    def _projection_name(self, projection: type[Projection[Any]]) -> str:
        check_class("The projection", projection, Projection, "its class")
        return self.fleet.projections.find(projection).projection.name

    def ping(self, timeout: float = 2.0) -> Health:
        """Return whether the databases of the fleet answer within ``timeout`` seconds in all; has no side effect.

        It asks the registry, whose format must be that of this version, the database of the tenants, and the databases
        of views over all tenants. Each answers on a connection of its pool: an exhausted pool is no answer.
        """
        from tenancy.operations.health import HealthChecks  # noqa: PLC0415 (as above)

        if self._health_checks is None:
            self._health_checks = HealthChecks(self.fleet)
        if self.is_closed:
            raise TenancyClosed
        return self._health_checks.ping(timeout)

    # -- lookup --

    def __getitem__(self, slug: str) -> Tenant:
        """Return a tenant, whatever its status; raises TenantNotFound."""
        return self._bound(find_tenant(self.fleet.registry_cache, slug))

    def recall(self, slug: str) -> Tenant | None:
        """Return a tenant as ``tenants[slug]`` does, from the cache only; None when the registry must be queried.

        Never waits, so an event loop can call it. Raises TenantNotFound for a slug that is known to be unused.
        """
        is_known, tenant = self.fleet.registry_cache.recall(known_slug(slug))
        if not is_known:
            return None
        if tenant is None:
            raise not_found(slug)
        return self._bound(tenant)

    def cached_slug(self, tenant_id: UUID | str) -> str | None:
        """Return the slug of a tenant by its id, from memory only: None if this process has not read it.

        Never waits, so that a log can call it.
        """
        check_type("The tenant's id", tenant_id, (str, UUID), "a UUID, or its text")
        tenant = self.fleet.registry_cache.known(tenant_id)
        return None if tenant is None else tenant.slug

    def __contains__(self, slug: object) -> bool:
        try:
            return isinstance(slug, str) and bool(self[slug])
        except LookupError:
            return False

    def __iter__(self) -> Iterator[Tenant]:
        """Yield all tenants in slug order, with one page of them in memory."""
        return map(self._bound, find_tenants(self.fleet.registry, TenantQuery()))

    def list(
        self,
        status: TenantStatus | str | None = None,
        *,
        where: Mapping[str, Any] = MappingProxyType({}),
        created_after: datetime | None = None,
        order: Order = "slug",
        limit: int | None = None,
        after: Tenant | str | None = None,
    ) -> Sequence[Tenant]:
        """Return the tenants that fulfil all conditions, by default all, in slug order.

        ``where`` has keys and values of the metadata. ``order`` is slug, -slug, created or -created. ``limit`` with
        ``after`` returns page after page: ``after`` is the last tenant of the page before, or its slug, or when ordered
        by creation its id. Tenants that are created or purged meanwhile shift no page. Raises InvalidArgument.
        """
        query = TenantQuery(
            status=status, where=where, created_after=created_after, order=order, limit=limit, after=after
        )
        return [self._bound(tenant) for tenant in find_tenants(self.fleet.registry, query)]

    def slugs(self) -> Sequence[str]:
        """Return the slugs of all tenants, in any order."""
        return self.fleet.registry.slugs()

    def history(self, slug: str) -> Sequence[Change]:
        """Return a tenant's changes, oldest first. A purged tenant is found by its id only."""
        check_type("The slug", slug, str, "the tenant's slug, or its id as text")
        try:
            tenant_id = UUID(slug)
        except ValueError:
            tenant_id = self[slug].id
        else:
            tenant = self.fleet.registry_cache.find(known_slug(slug))
            tenant_id = tenant.id if tenant is not None else tenant_id
        changes = self.fleet.registry.history(tenant_id)
        if not changes:
            raise not_found(slug)
        return changes

    def usage(self, tenant: str | Tenant) -> Usage:
        """Return what a tenant has recorded: events, bytes, times and rate.

        The events since the last call are counted, and the counts are stored, by this or any other process.
        """
        (usage,) = self.fleet.usage.measure([self._resolve(tenant)])
        return usage

    def usages(self, tenants: TenantSelection | None = None) -> Sequence[Usage]:
        """Return the usage of many tenants, by default of all that have tables, in slug order; with few queries."""
        from tenancy.operations.jobs import TenantSelection  # noqa: PLC0415 (most processes select nothing)

        if tenants is not None:
            check_type("tenants", tenants, TenantSelection, 'a selection: TenantSelection(where={"plan": "free"})')
        selection = TenantSelection() if tenants is None else tenants
        return self.fleet.usage.measure(selection.tenants(self.fleet.registry)[: selection.limit])

    # -- use --

    def application(self, cls: type[_TApplication], tenant: Tenant | str | None = None) -> _TApplication:
        """Return an application of a tenant, by default of the current one; the same object to all callers.

        Do not close it. Raises a TenantUnavailable when the tenant cannot be read, NotRegistered for an application
        that is not part of this fleet, and NoCurrentTenant.
        """
        check_class("The application", cls, Application, "its class, as in tenants[slug].get(Kennels)")
        if self.applications.get(cls.name) is not cls:
            msg = f"Application {cls.name!r} ({get_topic(cls)}) is not registered with this Tenancy."
            raise NotRegistered(msg, remedy="Pass its class to Tenancy(applications=[...]) and call init().")
        return self.fleet.application(cls, self.current if tenant is None else self._resolve(tenant))

    def projection(self, cls: type[Projection[Any]], tenant: Tenant | str | None = None) -> TenantProjection:
        """Return a tenant's projection, by default the current tenant's, with its ``view``.

        Raises as :meth:`application` does.
        """
        check_class("The projection", cls, Projection, "its class")
        fleet = self.fleet
        fleet.projections.find(cls)  # before the tenant is looked up
        return fleet.projection(cls, self.current if tenant is None else self._resolve(tenant))

    def across(self, cls: type[Projection[Any]]) -> CrossTenantProjection:
        """Return a projection over all tenants, with its ``view``; raises NotRegistered."""
        check_class("The projection", cls, Projection, "its class")
        return self.fleet.across(cls)

    def env(self, tenant: Tenant | str) -> dict[str, str]:
        """Return the environment variables that put a process's applications into a tenant's tables.

        The library's runners take them, too: ``SingleThreadedRunner(system, env=tenants.env("acme"))``. They contain
        the database URL with its password.
        """
        return self.fleet.env(self._resolve(tenant))

    def scope(self, tenant: Tenant | str, *, as_operator: str | None = None) -> AbstractContextManager[None]:
        """Return a context in which a tenant is the current one.

        With ``as_operator``, the id of an operator, suspended and archived tenants can be read as well, and no tenant
        can be written; the history records it. Raises a TenantUnavailable at once when the tenant cannot be read.
        """
        found = self._resolve(tenant)
        if not isinstance(tenant, str):
            found = self.fleet.registry_cache.latest(found.id)  # its status may have changed since
        self.fleet.check_serves(found, as_operator=as_operator is not None)
        if as_operator is None:
            return context.scope(self, found.id)
        return operator_scope(self.fleet.registry, self, found, as_operator, self.fleet.changed)

    def each(
        self,
        status: TenantStatus | str | None = TenantStatus.ACTIVE,
        *,
        where: Mapping[str, Any] = MappingProxyType({}),
        as_operator: str | None = None,
    ) -> Iterator[Tenant]:
        """Yield tenants in slug order, each as the current one until the next: ``for tenant in tenants.each():``.

        ``where`` has keys and values of the metadata, ``as_operator`` is that of :meth:`scope`, which raises for
        tenants that cannot be read. A tenant that is changed meanwhile and no longer meant is skipped.
        """
        query = TenantQuery(status=status, where=where)
        for listed in find_tenants(self.fleet.registry, query):
            tenant = self.fleet.registry_cache.get(listed.id)
            if tenant is not None and query.accepts(tenant):
                tenant = self._bound(tenant)
                with self.scope(tenant, as_operator=as_operator):
                    yield tenant

    def _resolve(self, tenant: Tenant | str) -> Tenant:
        if isinstance(tenant, str):
            return self[tenant]
        check_type("The tenant", tenant, Tenant, "its slug or a Tenant")
        if self.is_closed:
            raise TenancyClosed
        return tenant

    @property
    def current(self) -> Tenant:
        """This context's tenant; raises NoCurrentTenant outside a scope."""
        tenant_id = context.current_id(self)
        tenant = self.fleet.registry_cache.get(tenant_id)
        if tenant is None:
            self.fleet.registry_cache.admit(tenant_id, writes=False)
            raise not_found(str(tenant_id))
        return self._bound(tenant)


def _variables(
    migrations: str | PathLike[str] | None,
    requires: str | Mapping[type[Application[Any] | Projection[Any]], str] | None,
    quotas: Callable[[Tenant], Quotas | None] | None,
) -> dict[str, str]:
    """Return the arguments as variables, which reach the processes of ``tenancy exec``, too."""
    found = {}
    if migrations is not None:
        check_type("migrations", migrations, (str, PathLike), "the path of a directory")
        # Another process may have another working directory.
        found["TENANCY_MIGRATIONS"] = str(Path(migrations).absolute())
    if requires is not None:
        check_type(
            "requires", requires, (str, Mapping), 'a revision, or one for each class: requires={Kennels: "ae10"}'
        )
        by_class = (
            {"": requires}
            if isinstance(requires, str)
            else {f"{cls.name.upper()}_": each for cls, each in requires.items()}
        )
        found |= {f"{name}TENANCY_REQUIRES": revision for name, revision in by_class.items()}
    if quotas is not None:
        found["TENANCY_QUOTAS"] = topic_of(quotas)
    return found


def _request(wanted: str | TenantRequest) -> TenantRequest:
    if isinstance(wanted, str):
        return TenantRequest(slug=wanted)
    check_type("A tenant", wanted, TenantRequest, "its slug or a TenantRequest")
    return wanted
