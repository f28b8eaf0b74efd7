"""The shadow of a tenant's view: new tables beside the serving ones, filled from the first notification."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from eventsourcing.persistence import InterfaceError, Notification, OperationalError

from eventsourcing_sqlalchemy.errors import describe
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder, SQLAlchemyTrackingRecorder
from eventsourcing_sqlalchemy.transactions import inside
from tenancy.application_cache import TenantProjection
from tenancy.errors import TenancyError
from tenancy.following.follower import ProjectionDriver
from tenancy.isolation.spaces import space_of

if TYPE_CHECKING:
    from eventsourcing.application import Application
    from sqlalchemy.orm import Session

    from tenancy.fleet import Fleet
    from tenancy.model.projections import RegisteredProjection
    from tenancy.model.tenant import Tenant

__all__ = ["Shadow"]

# A batch, which is one transaction, ends at either limit.
_NOTIFICATIONS: Final = 500
_SECONDS: Final = 1.0
_SECONDS_WITH_ONE_WRITER: Final = 0.1
"""On SQLite, other writers wait for the batch."""

# Without the admission check: a suspended tenant's view is rebuilt, too.
_MODULE: Final = "eventsourcing_sqlalchemy"


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
        self.processed = 0
        """The number of notifications that this object has processed."""

    def __enter__(self) -> Self:
        with self._resources as resources:
            self._leader = self._open_leader(resources)
            projection = TenantProjection(
                self._registered, self._fleet.settings.environment, self._environment(create=self._create)
            )
            resources.callback(projection.close)
            view = projection.view
            assert isinstance(view, SQLAlchemyTrackingRecorder)
            self.view = view
            self._driver = ProjectionDriver(self._leader, projection, _NOTIFICATIONS)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._resources.close()

    def _open_leader(self, resources: ExitStack) -> Application[Any]:
        cls = self._registered.application
        spec = next(each for each in self._fleet.application_specs() if each.application == cls.name)
        if spec.encoding is not None:
            self._fleet.registry_cache.check_encoding(cls.name, spec.encoding)
        env = self._fleet.env(self._tenant)
        for variable in env:
            if variable.endswith("PERSISTENCE_MODULE"):
                env[variable] = _MODULE
        leader = cls(env=env)
        resources.callback(leader.close)
        return leader

    def _environment(self, *, create: bool) -> dict[str, str]:
        name, placement = self._registered.projection.name, self._tenant.placement
        datastore = self._fleet.shard.datastore
        schema, prefix = datastore.dialect.table_replacer.settings_of(
            space_of("rebuild", self._tenant.id, name), placement.schema_of(name), placement.prefix_of(name)
        )
        env = self._fleet.env(self._tenant)
        for start in ("", f"{name.upper()}_"):
            env[f"{start}PERSISTENCE_MODULE"] = _MODULE
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
        """Process the notifications that the leader has, up to ``stop``, in batches; ``check`` is called between them.

        None as ``stop`` means until there are no more.
        """
        # Nothing up to this id appears later. The pages omit topics that the projection does not follow.
        passed = self._driver.last_id() if stop is None else stop
        for page in self._driver.pages(self._driver.position(), stop):
            wanted = page.wanted
            while wanted:
                check()
                wanted = wanted[self._process(wanted) :]
            if page.is_last:
                break
        position = self._driver.position()
        if position < passed:
            self._driver.record(passed, position)

    def remaining(self) -> tuple[int, int]:
        """Return an upper limit of the number of notifications that are not processed, and the last id."""
        last_id = self._driver.last_id()
        return last_id - self._driver.position(), last_id

    def _process(self, wanted: Sequence[Notification]) -> int:
        """Process some notifications in one transaction; return how many."""
        recorded = self._driver.position()
        try:
            done = self._process_together(wanted, recorded)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # noqa: BLE001 (whatever the user's code raises; it is raised again below)
            # The view may have caught an error that ended the whole transaction, or one notification cannot be
            # processed. One by one, as a runner does, the first succeeds and the second is found.
            done = self._process_singly(wanted, recorded)
        self.processed += done
        return done

    def _process_together(self, wanted: Sequence[Notification], recorded: int) -> int:
        is_server = self._fleet.shard.datastore.dialect.is_server
        until = time.monotonic() + (_SECONDS if is_server else _SECONDS_WITH_ONE_WRITER)
        done = 0
        with self.view.batch() as session:
            for notification in wanted:
                self._driver.process(notification, recorded)
                # As if each had a session of its own: the view must not read its objects of earlier notifications.
                session.flush()
                session.expunge_all()
                done += 1
                if time.monotonic() >= until:
                    break
        return done

    def _process_singly(self, wanted: Sequence[Notification], recorded: int) -> int:
        for notification in wanted:
            try:
                self._driver.process(notification, recorded)
            except (OperationalError, InterfaceError):
                raise
            except Exception as error:
                tenant, name = self._tenant.slug, self._registered.projection.name
                msg = (
                    f"Projection {name!r} of tenant {tenant!r} cannot process notification {notification.id} of "
                    f"{self._leader.name!r}: {describe(error)}."
                )
                raise TenancyError(msg, remedy="Fix the projection, then rebuild it again.", tenant=tenant) from error
            recorded = self._driver.position()
        return len(wanted)
