"""Drive one follower, or one projection, of one tenant behind one leader, through the library's public hooks."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventsourcing.application import Application, LocalNotificationLog
from eventsourcing.persistence import Notification, Tracking
from eventsourcing.system import Follower

from eventsourcing_sqlalchemy.recorders import ConditionalTracking

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.projections import TenantProjection
    from tenancy.model.tenant import Tenant
    from tenancy.runner.pipes import Pipe

__all__ = ["PAGE", "FollowerDriver", "Page", "open_follower"]

PAGE: Final = 100
"""How many notifications are read at once, where nobody has said how many."""

# Held while a follower is told whom it follows, which is done in memory.
_introducing: Final = threading.Lock()


class Page(NamedTuple):
    """Some notifications of a leader, in their order."""

    wanted: Sequence[Notification]
    last_id: int
    """That of the last one that was read, wanted or not."""
    is_last: bool
    """Whether there were no more."""


class FollowerDriver(ABC):
    """A follower behind one leader. It holds both applications, which so stay open."""

    def __init__(self, leader: Application[Any], topics: Sequence[str]) -> None:
        self.leader = leader
        self.topics = topics
        self.records_all = False
        """Whether processing a notification records its position, whatever comes of it."""

    def last_id(self) -> int:
        """Return the leader's last notification id, 0 for none."""
        return self.leader.recorder.max_notification_id() or 0

    @abstractmethod
    def position(self) -> int:
        """Return the recorded position, 0 for none."""

    @abstractmethod
    def record(self, position: int, recorded: int) -> None:
        """Record a position; raises IntegrityError as :func:`process` does."""

    @abstractmethod
    def pages(self, start: int, stop: int | None = None) -> Iterator[Page]:
        """Yield what comes after ``start``, up to ``stop``."""

    @abstractmethod
    def process(self, notification: Notification, recorded: int) -> None:
        """Process one notification, and mostly record the position at once: a projection may leave that out.

        ``recorded`` is the position that is known to be recorded. Raises IntegrityError, and changes nothing, where the
        recorded one is behind that, because it was set back, or is not behind the notification.
        """

    def has_passed(self, target: int) -> bool:
        """Return whether nothing up to ``target`` is left to be processed."""
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
        with _introducing:
            reader = follower.readers.get(self._name)
            log: Any = None if reader is None else reader.notification_log
            # An application that was closed and constructed again has another recorder.
            if log is None or getattr(log, "recorder", None) is not leader.recorder:
                self._introduce()

    def _introduce(self) -> None:
        log = self.leader.notification_log
        nobody_cares = type(log) is LocalNotificationLog and self._follower.pull_section_size == log.section_size
        if nobody_cares and log.section_size == LocalNotificationLog.DEFAULT_SECTION_SIZE:
            log = LocalNotificationLog(self.leader.recorder, section_size=PAGE)
        self._follower.follow(self._name, log)
        if nobody_cares:
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
        # One by one: an event that cannot be converted must not keep those before it from being processed.
        for domain_event, tracking in self._follower.convert_notifications(self._name, [notification]):
            conditional = _tracking(tracking.application_name, tracking.notification_id, recorded)
            self._follower.process_event(domain_event, conditional)


class _ProjectionDriver(FollowerDriver):
    def __init__(self, leader: Application[Any], projection: TenantProjection) -> None:
        super().__init__(leader, projection.projection.topics)
        self._projection = projection

    def position(self) -> int:
        return self._projection.view.max_tracking_id(self.leader.name) or 0

    def record(self, position: int, recorded: int) -> None:
        self._projection.view.insert_tracking(_tracking(self.leader.name, position, recorded))

    def pages(self, start: int, stop: int | None = None) -> Iterator[Page]:
        while True:
            found = self.leader.recorder.select_notifications(
                start or None, PAGE, stop, topics=self.topics, inclusive_of_start=False
            )
            if not found:
                return
            start = found[-1].id
            yield Page(found, start, len(found) < PAGE)

    def process(self, notification: Notification, recorded: int) -> None:
        domain_event: Any = self.leader.mapper.to_domain_event(notification)
        tracking = _tracking(self.leader.name, notification.id, recorded)
        self._projection.projection.process_event(domain_event, tracking)


def _tracking(name: str, notification_id: int, recorded: int) -> Tracking:
    # Where nothing is recorded yet there may be no row, and nothing that could have been set back.
    return ConditionalTracking(name, notification_id, recorded) if recorded else Tracking(name, notification_id)


def open_follower(fleet: Fleet, tenant: Tenant, pipe: Pipe) -> FollowerDriver:
    """Return a tenant's follower behind a leader; raises a TenantUnavailable when the tenant does not serve."""
    leader: Application[Any] = fleet.application(fleet.applications[pipe.leader], tenant)
    cls = fleet.applications.get(pipe.follower)
    if cls is None:
        projection = next(each.projection for each in fleet.projections if each.projection.name == pipe.follower)
        return _ProjectionDriver(leader, fleet.projection(projection, tenant))
    follower = fleet.application(cls, tenant)
    assert isinstance(follower, Follower)
    return _FollowerDriver(leader, follower)
