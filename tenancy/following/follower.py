"""Follower drivers: run one tenant's follower or projection behind one leader, through the library's public API."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventsourcing.application import Application, LocalNotificationLog
from eventsourcing.persistence import Notification, Tracking
from eventsourcing.system import Follower

from eventsourcing_sqlalchemy.recorders import ConditionalTracking
from tenancy.instruments import instruments

if TYPE_CHECKING:
    from tenancy.application_cache import TenantProjection
    from tenancy.fleet import Fleet
    from tenancy.following.pipes import Pipe
    from tenancy.model.tenant import Tenant
    from tenancy.storage.open_view import OpenView

__all__ = ["PAGE", "CrossTenantDriver", "FollowerDriver", "Page", "ProjectionDriver", "open_follower"]

PAGE: Final = 100
"""Default number of notifications per page."""

# Held while a follower is attached to its leader, an in-memory operation.
_attach_lock: Final = threading.Lock()


class Page(NamedTuple):
    """Consecutive notifications of a leader."""

    wanted: Sequence[Notification]
    last_id: int
    """The id of the last notification that was read, wanted or not."""
    is_last: bool
    """Whether the leader had no more notifications."""


class FollowerDriver(ABC):
    """A follower behind one leader. Its references keep both applications open."""

    batch_size = 1
    """The most notifications of one :meth:`process_batch`."""

    def __init__(self, leader: Application[Any], topics: Sequence[str]) -> None:
        self.leader = leader
        self.topics = topics
        self.records_all = False
        """Whether processing a notification always records its position, even if it produces no events."""

    def last_id(self) -> int:
        """Return the leader's last notification id, 0 for none."""
        return self.leader.recorder.max_notification_id() or 0

    @abstractmethod
    def position(self) -> int:
        """Return the recorded position, 0 for none."""

    @abstractmethod
    def record(self, position: int, recorded: int) -> None:
        """Record a position. Raises IntegrityError in the same cases as :meth:`process`."""

    @abstractmethod
    def pages(self, start: int, stop: int | None = None) -> Iterator[Page]:
        """Yield the pages after ``start``, up to and including ``stop``."""

    @abstractmethod
    def process(self, notification: Notification, recorded: int) -> None:
        """Process one notification. A process application also records its position; a projection may omit that.

        ``recorded`` is the last position known to be recorded. Raises IntegrityError and changes nothing if the
        recorded position is behind it, because it was set back, or has already reached the notification.
        """

    def process_batch(
        self, notifications: Sequence[Notification], recorded: int, may_go_on: Callable[[], bool]
    ) -> Sequence[Notification]:
        """Process notifications in one transaction, and record the position of the last one; return them.

        Ends early, after at least one, when ``may_go_on`` returns False. Raises an exception, and changes nothing, if
        one of them fails.
        """
        raise NotImplementedError

    def has_passed(self, target: int) -> bool:
        """Return whether everything up to ``target`` is processed."""
        position = self.position()
        if position >= target:
            return True
        return not any(page.wanted for page in self.pages(position, target))


class _FollowerDriver(FollowerDriver):
    def __init__(self, leader: Application[Any], follower: Follower[Any]) -> None:
        super().__init__(leader, follower.topics)
        self.records_all = type(follower).process_event is Follower.process_event
        self._name = leader.name
        self._follower = follower
        with _attach_lock:
            reader = follower.readers.get(self._name)
            log: Any = None if reader is None else reader.notification_log
            # A reconstructed application has another recorder.
            if log is None or getattr(log, "recorder", None) is not leader.recorder:
                self._attach()

    def _attach(self) -> None:
        log = self.leader.notification_log
        has_default_size = type(log) is LocalNotificationLog and self._follower.pull_section_size == log.section_size
        if has_default_size and log.section_size == LocalNotificationLog.DEFAULT_SECTION_SIZE:
            log = LocalNotificationLog(self.leader.recorder, section_size=PAGE)
        self._follower.follow(self._name, log)
        if has_default_size:
            self._follower.readers[self._name].section_size = log.section_size

    def position(self) -> int:
        return self._follower.recorder.max_tracking_id(self._name) or 0

    def record(self, position: int, recorded: int) -> None:
        self._follower.recorder.insert_tracking(_tracking(self._name, position, recorded))

    def pages(self, start: int, stop: int | None = None) -> Iterator[Page]:
        size = self._follower.readers[self._name].section_size
        for found in self._follower.pull_notifications(self._name, start or None, stop, inclusive_of_start=False):
            wanted = self._follower.filter_received_notifications(found)
            yield Page(wanted, found[-1].id, len(found) < size)

    def process(self, notification: Notification, recorded: int) -> None:
        # One at a time: an event that cannot be converted must not block those before it.
        for domain_event, tracking in self._follower.convert_notifications(self._name, [notification]):
            conditional = _tracking(tracking.application_name, tracking.notification_id, recorded)
            process: Any = self._follower.process_event
            if instruments.tracer is not None:
                process = instruments.tracer.processing(process, self.leader, notification.id)
            process(domain_event, conditional)


class ProjectionDriver(FollowerDriver):
    """A projection behind one leader. ``page`` is the number of notifications per page."""

    def __init__(self, leader: Application[Any], projection: TenantProjection, page: int = PAGE) -> None:
        super().__init__(leader, projection.projection.topics)
        self._projection = projection
        self._page = page

    def position(self) -> int:
        return self._projection.view.max_tracking_id(self.leader.name) or 0

    def record(self, position: int, recorded: int) -> None:
        self._projection.view.insert_tracking(_tracking(self.leader.name, position, recorded))

    def pages(self, start: int, stop: int | None = None) -> Iterator[Page]:
        return _read_pages(self.leader, self.topics, start, stop, self._page)

    def process(self, notification: Notification, recorded: int) -> None:
        domain_event: Any = self.leader.mapper.to_domain_event(notification)
        tracking = _tracking(self.leader.name, notification.id, recorded)
        process: Any = self._projection.projection.process_event
        if instruments.tracer is not None:
            process = instruments.tracer.processing(process, self.leader, notification.id)
        process(domain_event, tracking)


class CrossTenantDriver(FollowerDriver):
    """Projects one tenant's events into the view of all tenants. ``page`` is the number of notifications per page."""

    # A transaction holds locks on rows that other tenants' events also update.
    batch_size = 50

    def __init__(self, leader: Application[Any], view: OpenView, tenant: Tenant, page: int = PAGE) -> None:
        super().__init__(leader, view.projection.topics)
        self._view = view
        self._tenant = tenant
        self._page = page
        self._is_open = False

    def position(self) -> int:
        return self._view.position(self._tenant, self.leader.name) or 0

    def record(self, position: int, recorded: int) -> None:
        self._open(recorded)
        self._view.view.insert_tracking(self._tracking(position, recorded))

    def pages(self, start: int, stop: int | None = None) -> Iterator[Page]:
        return _read_pages(self.leader, self.topics, start, stop, self._page)

    def process(self, notification: Notification, recorded: int) -> None:
        self._open(recorded)
        domain_event: Any = self.leader.mapper.to_domain_event(notification)
        tracking = self._tracking(notification.id, recorded)
        process: Any = self._view.projection.process_event
        if instruments.tracer is not None:
            process = instruments.tracer.processing(process, self.leader, notification.id)
        process(domain_event, tracking)

    def process_batch(
        self, notifications: Sequence[Notification], recorded: int, may_go_on: Callable[[], bool]
    ) -> Sequence[Notification]:
        self._open(recorded)  # not in the transaction, which may be rolled back
        done: list[Notification] = []
        with self._view.view.batch():
            for notification in notifications:
                if done and not may_go_on():
                    break
                self.process(notification, recorded)
                done.append(notification)
            # The projection may ignore the last one, whose position makes the batch complete.
            if self.position() < done[-1].id:
                self.record(done[-1].id, recorded)
        return done

    def _open(self, recorded: int) -> None:
        if not recorded and not self._is_open:
            self._view.open(self._tenant, self.leader.name)
            self._is_open = True

    def _tracking(self, position: int, recorded: int) -> Any:
        return self._view.tracking(self._tenant, self.leader.name, position, recorded)


def _read_pages(
    leader: Application[Any], topics: Sequence[str], start: int, stop: int | None, size: int = PAGE
) -> Iterator[Page]:
    """Yield a leader's notifications with these topics, all for none."""
    while True:
        found = leader.recorder.select_notifications(start or None, size, stop, topics=topics, inclusive_of_start=False)
        if not found:
            return
        start = found[-1].id
        yield Page(found, start, len(found) < size)


def _tracking(name: str, notification_id: int, recorded: int) -> Tracking:
    # Before the first recorded position there may be no row, and nothing to set back.
    return ConditionalTracking(name, notification_id, recorded) if recorded else Tracking(name, notification_id)


def open_follower(fleet: Fleet, tenant: Tenant, pipe: Pipe) -> FollowerDriver:
    """Return the driver of a tenant's follower behind a leader. Raises TenantUnavailable for an inactive tenant."""
    leader: Application[Any] = fleet.application(fleet.applications[pipe.leader], tenant)
    if pipe.follower in fleet.cross_tenant:
        return CrossTenantDriver(leader, fleet.cross_tenant[pipe.follower].serving(), tenant)
    cls = fleet.applications.get(pipe.follower)
    if cls is None:
        projection = next(each.projection for each in fleet.projections if each.projection.name == pipe.follower)
        return ProjectionDriver(leader, fleet.projection(projection, tenant))
    follower = fleet.application(cls, tenant)
    assert isinstance(follower, Follower)
    return _FollowerDriver(leader, follower)
