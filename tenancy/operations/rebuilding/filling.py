"""Fill the new tables of a view: process notifications in large transactions that no reader sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from eventsourcing.persistence import InterfaceError, Notification, OperationalError

from eventsourcing_sqlalchemy.errors import describe
from tenancy.errors import TenancyError

if TYPE_CHECKING:
    from eventsourcing.application import Application
    from sqlalchemy.orm import Session

    from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
    from tenancy.fleet import Fleet
    from tenancy.following.follower import FollowerDriver
    from tenancy.model.tenant import Tenant

__all__ = ["NOTIFICATIONS", "UNADMITTED", "Filler", "open_leader"]

NOTIFICATIONS: Final = 500
"""The most notifications of a page, and of a batch, which is one transaction."""
# The other limit of a batch.
_SECONDS: Final = 1.0
_SECONDS_WITH_ONE_WRITER: Final = 0.1
"""On SQLite, other writers wait for the batch."""

UNADMITTED: Final = "eventsourcing_sqlalchemy"
"""The persistence module without the admission check: a suspended tenant's view is rebuilt, too."""


def open_leader(fleet: Fleet, cls: type[Application[Any]], tenant: Tenant, resources: ExitStack) -> Application[Any]:
    """Return an application of a tenant, whatever its status; ``resources`` closes it.

    Raises EncodingMismatch when this process would read the events with another cipher or compressor than the fleet's.
    """
    spec = next(each for each in fleet.application_specs() if each.application == cls.name)
    if spec.encoding is not None:
        fleet.registry_cache.check_encoding(cls.name, spec.encoding)
    env = fleet.env(tenant)
    for variable in env:
        if variable.endswith("PERSISTENCE_MODULE"):
            env[variable] = UNADMITTED
    leader = cls(env=env)
    resources.callback(leader.close)
    return leader


class Filler:
    """Processes the notifications of one leader for one tenant. Used by one thread.

    ``what`` names the projection in messages. ``guard`` is called first in the transaction of each batch; an exception
    that it raises is passed on.
    """

    def __init__(
        self,
        driver: FollowerDriver,
        view: SQLAlchemyTrackingRecorder,
        tenant: Tenant,
        what: str,
        guard: Callable[[Session], None] = lambda _: None,
    ) -> None:
        self._driver = driver
        self._view = view
        self._tenant = tenant
        self._what = what
        self._guard = guard
        self._seconds = _SECONDS if view.datastore.dialect.is_server else _SECONDS_WITH_ONE_WRITER
        self.processed = 0
        """The number of notifications that this object has processed."""

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
        if self._driver.position() < passed:
            with self._view.batch() as session:
                self._guard(session)
                self._driver.record(passed, self._driver.position())

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
        until = time.monotonic() + self._seconds
        done = 0
        with self._view.batch() as session:
            self._guard(session)
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
        with self._view.transaction(commit=False) as session:
            self._guard(session)
        for notification in wanted:
            try:
                self._driver.process(notification, recorded)
            except (OperationalError, InterfaceError):
                raise
            except Exception as error:
                msg = (
                    f"{self._what} cannot process notification {notification.id} of {self._driver.leader.name!r}: "
                    f"{describe(error)}."
                )
                remedy = "Fix the projection, then rebuild it again."
                raise TenancyError(msg, remedy=remedy, tenant=self._tenant.slug) from error
            recorded = self._driver.position()
        return len(wanted)
