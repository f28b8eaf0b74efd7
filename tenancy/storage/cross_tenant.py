"""A projection over all tenants: one view, fed by the events of every tenant, each with its tenant."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventsourcing.projection import Projection
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.locks import renew_after_fork
from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from eventsourcing_sqlalchemy.settings import Settings, mask
from eventsourcing_sqlalchemy.transactions import inside
from tenancy.errors import TenancyClosed
from tenancy.isolation.spaces import space_across
from tenancy.storage.open_view import CrossTenantView, OpenView, TenantTracking
from tenancy.storage.shard import ping

if TYPE_CHECKING:
    from eventsourcing.application import Application
    from sqlalchemy.engine import URL

    from eventsourcing_sqlalchemy.dialects.protocols import Executor, TableReplacer
    from eventsourcing_sqlalchemy.naming import TableName
    from tenancy.model.tenant import Tenant
    from tenancy.settings import TenancySettings

__all__ = ["CrossTenantProjection", "CrossTenantView", "TenantTracking"]


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
        self._open: OpenView | None = None
        self._has_tables = False
        self._is_closed = False

    def after_fork(self) -> None:
        """Create new locks, also in the child of a fork, where the threads that held the locks do not exist."""
        # Held while the view is constructed.
        self._lock = threading.Lock()
        # Held while its tables are created, which waits for the database.
        self._creating = threading.Lock()

    def __repr__(self) -> str:
        where = mask(self.url or self._settings.control_url)
        return f"CrossTenantProjection({self.name}; {', '.join(self.applications)}; {where})"

    @property
    def version(self) -> str | None:
        """The ``version`` of the view class as text, or None. With another one, the view must be rebuilt."""
        version = getattr(self.view_class, "version", None)
        return None if version is None else str(version)

    @property
    def view(self) -> SQLAlchemyTrackingRecorder:
        """The view; constructed, with its tables unless CREATE_TABLE is off, on first use."""
        return self.serving().view

    @property
    def projection(self) -> Projection[Any]:
        """The projection that updates the view."""
        return self.serving().projection

    @property
    def tracking_table(self) -> TableName:
        """The table of the positions."""
        return self.unchecked().tracking_table

    def unchecked(self) -> OpenView:
        """Return the view, whether or not its tables exist; connects to no database."""
        with self._lock:
            if self._is_closed:
                raise TenancyClosed
            if self._open is None:
                self._open = OpenView(self.projection_class, self.view_class, self._environment())
            return self._open

    def serving(self) -> OpenView:
        """Return the view, whose tables are created on first use unless CREATE_TABLE is off."""
        found = self.unchecked()
        if not self._has_tables:
            if Settings.read_create_table(Environment(self.name, {**self._settings.environment})):
                self.create_tables()
            else:
                self._has_tables = found.has_tables()
        return found

    def create_tables(self) -> None:
        """Create the view's missing tables, also where CREATE_TABLE is off; idempotent."""
        found = self.unchecked()
        with self._creating:
            if not self._has_tables:
                found.view.create_table()
                self._has_tables = True

    def _environment(self, place: tuple[str | None, str] | None = None) -> Mapping[str, str]:
        settings = self._settings
        url = self.url or settings.control_url
        creator = settings.control_creator_topic if self.url is None else None
        schema, prefix = self._place() if place is None else place
        placement = {
            "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
            "SQLALCHEMY_URL": url.render_as_string(hide_password=False),
            "SQLALCHEMY_CONNECTION_CREATOR_TOPIC": creator or "",
            "SQLALCHEMY_SCOPED_SESSION_TOPIC": "",
            "SQLALCHEMY_ENGINE_TOPIC": "",
            "SQLALCHEMY_SCHEMA": schema or "",
            "SQLALCHEMY_TABLE_PREFIX": prefix,
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

    def _place(self) -> tuple[str | None, str]:
        """Return the schema and the prefix of the serving tables."""
        has_schemas = (self.url or self._settings.control_url).get_backend_name() != "sqlite"
        schema = self._settings.control_schema
        return (schema, "") if has_schemas else (None, f"{schema}_")

    # -- positions --

    def positions(self, leader: str, tenant_ids: Collection[UUID]) -> dict[UUID, int]:
        """Return the recorded positions of these tenants behind an application; a tenant without one is absent.

        Creates no tables.
        """
        return self.unchecked().positions(leader, tenant_ids)

    def position(self, tenant: Tenant, leader: str) -> int | None:
        """Return a tenant's recorded position behind an application, or None."""
        return self.serving().position(tenant, leader)

    def open(self, tenant: Tenant, leader: str) -> None:
        """Record position 0 for a tenant that has none. From then on, a position that was set back is noticed."""
        self.serving().open(tenant, leader)

    def tracking(self, tenant: Tenant, leader: str, notification_id: int, recorded: int) -> TenantTracking:
        """Return a position to record, if the recorded one is still between ``recorded`` and it."""
        return self.unchecked().tracking(tenant, leader, notification_id, recorded)

    # -- rebuilding --

    @property
    def replacer(self) -> TableReplacer:
        """Replaces tables in the view's database."""
        return self.unchecked().view.datastore.dialect.table_replacer

    @property
    def schema(self) -> str | None:
        """The schema of the serving tables; None where the database has none."""
        return self._place()[0]

    @property
    def prefix(self) -> str:
        """What the names of the serving tables start with, before the name of the projection."""
        return self._place()[1]

    @property
    def shadow_space(self) -> str:
        """The space of the tables that a rebuild fills."""
        return space_across("rebuild", self._settings.control_schema, self.name)

    @property
    def replaced_space(self) -> str:
        """The space to which replaced tables are moved, to be dropped in the same transaction."""
        return space_across("replaced", self._settings.control_schema, self.name)

    def open_shadow(self) -> OpenView:
        """Return the view on the tables that a rebuild fills, whether or not they exist. Close it."""
        place = self.replacer.settings_of(self.shadow_space, *self._place())
        return OpenView(self.projection_class, self.view_class, self._environment(place))

    # -- purging --

    def forget(self, tenant: Tenant) -> None:
        """Delete a tenant's rows, and refuse its events from now on; idempotent.

        A rebuild that is running forgets it in the same transaction. One that creates its tables later does not read
        the tenant, whose status is known by then.
        """
        serving = self.serving()
        if not self._has_tables:
            return
        shadow = self.open_shadow()
        try:
            with serving.view.transaction() as session:
                serving.forget(session, tenant, self.applications)
                # After the serving tables, which a replacement locks first.
                if serving.view.datastore.run_in_session(session, self._has_shadow, savepoint=False):
                    with inside(shadow.view.datastore, session):
                        shadow.forget(session, tenant, self.applications)
        finally:
            shadow.close()

    def _has_shadow(self, executor: Executor) -> bool:
        return bool(self.replacer.names_in(executor, self.shadow_space))

    def close(self) -> None:
        """Release the engine; idempotent."""
        with self._lock:
            self._is_closed = True
            found, self._open = self._open, None
        if found is not None:
            found.close()
