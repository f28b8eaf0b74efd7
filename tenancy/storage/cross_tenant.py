"""Projections over all tenants: one view, fed by the events of every tenant, each with its tenant."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.persistence import InfrastructureFactory, IntegrityError, Tracking
from eventsourcing.projection import Projection
from eventsourcing.utils import Environment, get_topic

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.locks import renew_after_fork
from eventsourcing_sqlalchemy.recorders import ConditionalTracking, SQLAlchemyTrackingRecorder
from eventsourcing_sqlalchemy.settings import Settings, mask, parse_url
from tenancy.errors import NotRegistered, TenancyClosed, TenancyError
from tenancy.storage.shard import ping

if TYPE_CHECKING:
    from eventsourcing.application import Application
    from sqlalchemy.engine import URL

    from eventsourcing_sqlalchemy.naming import TableName
    from tenancy.model.tenant import Tenant
    from tenancy.registry import Registry
    from tenancy.settings import TenancySettings

__all__ = ["CrossTenantProjection", "CrossTenantProjections", "CrossTenantView", "TenantTracking"]

# The recorded position of a purged tenant. No event can be projected after it.
_CLOSED: Final = 2**63 - 1
_POSITIONS_AT_ONCE: Final = 500
# A fleet setting in the registry for each projection. One for all of them would lose a name when two processes with
# different projections start at once.
_RECORDED: Final = "cross_tenant:"


@dataclass(frozen=True)
class TenantTracking(ConditionalTracking):
    """The position of an event in its tenant's application, with the tenant."""

    tenant: Tenant


class CrossTenantView(Protocol):
    """What the view of a projection over all tenants has beside the methods of its base SQLAlchemyTrackingRecorder."""

    def forget(self, tenant: Tenant) -> None:
        """Delete a tenant's rows, as a part of its purge; called in an open transaction of the view."""


class CrossTenantProjection:
    """A projection over all tenants with its only view. Safe to use from many threads."""

    def __init__(
        self,
        settings: TenancySettings,
        projection: type[Projection[Any]],
        view: type[SQLAlchemyTrackingRecorder],
        url: URL | None,
    ) -> None:
        self.name = projection.name
        self.applications: dict[str, type[Application[Any]]] = {}
        """The applications that it follows, by name."""
        self.projection_class = projection
        self.view_class = view
        self.url = url
        self._settings = settings
        self.after_fork()
        renew_after_fork(self)
        self._factory: InfrastructureFactory[Any] | None = None
        self._view: SQLAlchemyTrackingRecorder | None = None
        self._projection: Projection[Any] | None = None
        self._is_closed = False

    def after_fork(self) -> None:
        """Create a new lock, also in the child of a fork, where the thread that held the lock does not exist."""
        # Held while the view and its tables are created.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        where = mask(self.url or self._settings.control_url)
        return f"CrossTenantProjection({self.name}; {', '.join(self.applications)}; {where})"

    @property
    def view(self) -> SQLAlchemyTrackingRecorder:
        """The view; constructed, with its tables, on first use."""
        if self._view is None:
            self._construct()
        assert self._view is not None
        return self._view

    @property
    def projection(self) -> Projection[Any]:
        """The projection that updates the view."""
        if self._projection is None:
            self._construct()
        assert self._projection is not None
        return self._projection

    def _construct(self) -> None:
        with self._lock:
            if self._is_closed:
                raise TenancyClosed
            if self._view is not None:
                return
            factory: InfrastructureFactory[Any] = InfrastructureFactory.construct(
                Environment(self.name, self._environment())
            )
            try:
                view = cast("SQLAlchemyTrackingRecorder", factory.tracking_recorder(self.view_class))
                self._projection = self.projection_class(view)
            except BaseException:
                factory.close()
                raise
            self._factory, self._view = factory, view

    def _environment(self) -> Mapping[str, str]:
        settings = self._settings
        url = self.url or settings.control_url
        creator = settings.control_creator_topic if self.url is None else None
        has_schemas = url.get_backend_name() != "sqlite"
        placement = {
            "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
            "SQLALCHEMY_URL": url.render_as_string(hide_password=False),
            "SQLALCHEMY_CONNECTION_CREATOR_TOPIC": creator or "",
            "SQLALCHEMY_SCOPED_SESSION_TOPIC": "",
            "SQLALCHEMY_ENGINE_TOPIC": "",
            "SQLALCHEMY_SCHEMA": settings.control_schema if has_schemas else "",
            "SQLALCHEMY_TABLE_PREFIX": "" if has_schemas else f"{settings.control_schema}_",
        }
        # The placement has precedence over the application-prefixed forms, which are meant for tenants.
        own = {f"{self.name.upper()}_{key}": value for key, value in placement.items()}
        return {**settings.environment, **placement, **own}

    def ping(self) -> None:
        """Ask the view's own database something; creates no table. Raises an error if it cannot be used."""
        assert self.url is not None, "the other views are beside the registry"
        settings = Settings.read(Environment(self.name, dict(self._environment()))).engine
        # On the engine of the view, if it has been constructed: engines are shared by their URL and settings.
        datastore = SQLAlchemyDatastore(url=self.url, settings=settings)
        try:
            ping(datastore, self.url)
        finally:
            datastore.close()

    @property
    def tracking_table(self) -> TableName:
        """The table of the positions."""
        return next(spec.name for spec in self.view.tables if spec.kind == "tracking")

    def positions(self, leader: str, tenant_ids: Collection[UUID]) -> dict[UUID, int]:
        """Return the recorded positions of these tenants behind an application; a tenant without one is absent."""
        table, found = self.view.tracking_table, dict[UUID, int]()
        ids = {_key(tenant_id, leader): tenant_id for tenant_id in tenant_ids}
        keys = list(ids)
        with self.view.transaction(commit=False) as session:
            for start in range(0, len(keys), _POSITIONS_AT_ONCE):
                some = table.c.application_name.in_(keys[start : start + _POSITIONS_AT_ONCE])
                for row in session.execute(sa.select(table).where(some)):
                    found[ids[row.application_name]] = row.notification_id
        return found

    def position(self, tenant: Tenant, leader: str) -> int | None:
        """Return a tenant's recorded position behind an application, or None."""
        return self.view.max_tracking_id(_key(tenant.id, leader))

    def open(self, tenant: Tenant, leader: str) -> None:
        """Record position 0 for a tenant that has none. From then on, a position that was set back is noticed."""
        try:
            self.view.insert_tracking(Tracking(_key(tenant.id, leader), 0))
        except IntegrityError:
            return  # another process has done so

    def tracking(self, tenant: Tenant, leader: str, notification_id: int, recorded: int) -> TenantTracking:
        """Return a position to record, if the recorded one is still between ``recorded`` and it."""
        return TenantTracking(_key(tenant.id, leader), notification_id, recorded, tenant)

    def forget(self, tenant: Tenant) -> None:
        """Delete a tenant's rows, and refuse its events from now on; idempotent.

        The positions are closed first: a process that is projecting one of its events commits before that, or fails.
        """
        view = self.view
        with view.transaction() as session:
            name = view.tracking_table.c.application_name
            # Also those of applications that only processes with other code follow.
            recorded = session.scalars(sa.select(name).where(name.startswith(_key(tenant.id, "")))).all()
            for key in sorted({*recorded, *(_key(tenant.id, leader) for leader in self.applications)}):
                with suppress(IntegrityError):  # an earlier purge, which was interrupted, has closed it
                    view._insert_tracking(session, Tracking(key, _CLOSED))  # noqa: SLF001 (the hook for views)
            cast("CrossTenantView", view).forget(tenant)

    def close(self) -> None:
        """Release the engine; idempotent."""
        with self._lock:
            self._is_closed = True
            factory, self._factory = self._factory, None
        if factory is not None:
            factory.close()


class CrossTenantProjections:
    """A fleet's projections over all tenants, by name."""

    def __init__(self, settings: TenancySettings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._by_name: dict[str, CrossTenantProjection] = {}

    def __iter__(self) -> Iterator[CrossTenantProjection]:
        return iter(list(self._by_name.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> CrossTenantProjection:
        return self._by_name[name]

    def register(
        self,
        application: type[Application[Any]],
        projection: type[Projection[Any]],
        view: type[SQLAlchemyTrackingRecorder],
        url: str | None,
    ) -> None:
        """Register a projection, or one more application for a registered one.

        Raises TenancyError for a view without ``forget``, and for a name that another projection has.
        """
        if not callable(getattr(view, "forget", None)):
            msg = f"The view {get_topic(view)} has no method forget(tenant): a purge could not remove a tenant's rows."
            raise TenancyError(msg, remedy="Add it: delete the rows of the tenant in self.transaction().")
        parsed = None if url is None else parse_url(url, "The URL of the view")
        known = self._by_name.get(projection.name)
        if known is None:
            known = self._by_name[projection.name] = CrossTenantProjection(self._settings, projection, view, parsed)
        if (known.projection_class, known.view_class, known.url) != (projection, view, parsed):
            msg = f"The projection {projection.name!r} over all tenants is registered with another class, view or URL."
            raise TenancyError(msg, remedy="Give one of them another name.")
        known.applications[application.name] = application

    def find(self, projection: type[Projection[Any]]) -> CrossTenantProjection:
        """Return a registered projection; raises NotRegistered."""
        found = self._by_name.get(projection.name)
        if found is None or found.projection_class is not projection:
            msg = f"Projection {projection.name!r} ({get_topic(projection)}) is not registered over all tenants."
            remedy = "Register it: tenants.project_across(application, projection, view)"
            raise NotRegistered(msg, remedy=remedy)
        return found

    def record(self) -> None:
        """Record in the registry which views will hold tenants' rows, before the first row is written."""
        for name in self._by_name.keys() - self._recorded():
            self._registry.record(f"{_RECORDED}{name}", value=True)

    def _recorded(self) -> set[str]:
        keys = self._registry.fleet_settings()
        return {key.removeprefix(_RECORDED) for key in keys if key.startswith(_RECORDED)}

    def check_code(self) -> None:
        """Raise NotRegistered if this process lacks the code of a view that may hold rows of a tenant."""
        missing = sorted(self._recorded() - self._by_name.keys())
        if missing:
            names = ", ".join(missing)
            msg = f"The views over all tenants may hold rows of the tenant, and their code is missing: {names}."
            remedy = "Register them: tenants.project_across(...), or on the command line --app module:name"
            raise NotRegistered(msg, remedy=remedy)

    def forget(self, tenant: Tenant) -> None:
        """Delete a tenant's rows from all views; idempotent. Raises as :meth:`check_code` does."""
        self.check_code()
        for each in self:
            each.forget(tenant)

    def close(self) -> None:
        """Release the engines of all views; idempotent."""
        for each in self:
            each.close()


def _key(tenant_id: UUID, leader: str) -> str:
    return f"{tenant_id}:{leader}"
