"""The shadow of a tenant's view: new tables beside the serving ones, filled from the first notification."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder, SQLAlchemyTrackingRecorder
from eventsourcing_sqlalchemy.transactions import inside
from tenancy.application_cache import TenantProjection
from tenancy.following.follower import ProjectionDriver
from tenancy.isolation.spaces import space_of
from tenancy.operations.rebuilding.filling import NOTIFICATIONS, UNADMITTED, Filler, open_leader

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.fleet import Fleet
    from tenancy.model.projections import RegisteredProjection
    from tenancy.model.tenant import Tenant

__all__ = ["Shadow"]


class Shadow:
    """The view of one tenant in a space of its own, and the application that it follows. Used by one thread.

    Use it in a ``with`` statement. ``create`` creates its tables. Raises EncodingMismatch when this process would read
    the events with another cipher or compressor than the fleet's.
    """

    def __init__(self, fleet: Fleet, registered: RegisteredProjection, tenant: Tenant, *, create: bool) -> None:
        self._fleet = fleet
        self._registered = registered
        self._tenant = tenant
        self._create = create
        self._resources = ExitStack()

    @property
    def processed(self) -> int:
        """The number of notifications that this object has processed."""
        return self._filler.processed

    def __enter__(self) -> Self:
        with self._resources as resources:
            self._leader = open_leader(self._fleet, self._registered.application, self._tenant, resources)
            projection = TenantProjection(
                self._registered, self._fleet.settings.environment, self._environment(create=self._create)
            )
            resources.callback(projection.close)
            view = projection.view
            assert isinstance(view, SQLAlchemyTrackingRecorder)
            self.view = view
            name, slug = self._registered.projection.name, self._tenant.slug
            what = f"Projection {name!r} of tenant {slug!r}"
            driver = ProjectionDriver(self._leader, projection, NOTIFICATIONS)
            self._filler = Filler(driver, view, self._tenant, what)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._resources.close()

    def _environment(self, *, create: bool) -> dict[str, str]:
        name, placement = self._registered.projection.name, self._tenant.placement
        datastore = self._fleet.shard.datastore
        schema, prefix = datastore.dialect.table_replacer.settings_of(
            space_of("rebuild", self._tenant.id, name), placement.schema_of(name), placement.prefix_of(name)
        )
        env = self._fleet.env(self._tenant)
        for start in ("", f"{name.upper()}_"):
            env[f"{start}PERSISTENCE_MODULE"] = UNADMITTED
            env[f"{start}CREATE_TABLE"] = "yes" if create else "no"
            env[f"{start}SQLALCHEMY_SCHEMA"] = schema or ""
            env[f"{start}SQLALCHEMY_TABLE_PREFIX"] = prefix
        return env

    @contextmanager
    def joining(self, session: Session) -> Iterator[None]:
        """Let the view and the leader use a session's transaction inside the block."""
        recorder = self._leader.recorder
        assert isinstance(recorder, SQLAlchemyApplicationRecorder)
        with inside(self.view.datastore, session), inside(recorder.datastore, session):
            yield

    def catch_up(self, check: Callable[[], None], stop: int | None = None) -> None:
        """Process the notifications as :meth:`Filler.catch_up` does."""
        self._filler.catch_up(check, stop)

    def remaining(self) -> tuple[int, int]:
        """Return an upper limit of the number of notifications that are not processed, and the last id."""
        return self._filler.remaining()
