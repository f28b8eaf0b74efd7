"""What a worker does in a turn: let one follower of one tenant process a bounded number of notifications."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import IntegrityError, InterfaceError, Notification, OperationalError, PersistenceError

from eventsourcing_sqlalchemy.background import Activity, keep_running
from eventsourcing_sqlalchemy.errors import describe, is_retryable
from tenancy.errors import RegistryMissing, RegistryUnavailable, TenantUnavailable
from tenancy.runner.courses import Course, Courses
from tenancy.runner.failures import frames_of, outage_of
from tenancy.runner.following import Following, follow
from tenancy.runner.troubles import Troubles

if TYPE_CHECKING:
    from tenancy.runner.metrics import Metrics
    from tenancy.runner.ready import Key, ReadyQueue
    from tenancy.tenancy import Tenancy
    from tenancy.tenant import Tenant

__all__ = ["Turns"]

logger = logging.getLogger(__name__)

# A turn ends when either is used up. A slow policy uses up the seconds.
_NOTIFICATIONS: Final = 100
_SECONDS: Final = 0.25

# How long a follower waits whose database, or the registry, cannot be reached.
_OUTAGE: Final = 0.5


class Turns:
    """Takes turns until the queue is closed; ``run`` is what each worker thread does."""

    def __init__(
        self,
        tenants: Tenancy,
        courses: Courses,
        ready: ReadyQueue,
        troubles: Troubles,
        *,
        metrics: Metrics,
        may_work: Callable[[], bool],
    ) -> None:
        self._tenants = tenants
        self._courses = courses
        self._ready = ready
        self._troubles = troubles
        self._metrics = metrics
        self._may_work = may_work
        self.activity = Activity("workers", "A worker of the runner fails", logger)

    def run(self, stopping: threading.Event) -> None:
        """Take turns until the queue is closed; nothing that a tenant's code raises ends it."""
        keep_running(self.activity, self._run_one, stopping)

    def _run_one(self) -> bool:
        taken = self._ready.take()
        if taken is None:
            return False
        key, leaders = taken
        more: set[str] = set()
        try:
            more = self._take(key, leaders)
        except Exception as error:
            where = frames_of(error)[-1]
            logger.error("A turn failed: %s at %s", describe(error), where, extra=_extra(key))  # noqa: TRY400 (no values)
            self._ready.block(key, leaders, _OUTAGE)
            raise
        finally:
            self._ready.done(key, more)
        return True

    def _take(self, key: Key, leaders: Iterable[str]) -> set[str]:
        """Return the leaders behind which there is more to do."""
        more: set[str] = set()
        began = time.monotonic()
        budget = _NOTIFICATIONS
        for course in self._courses.of(key):
            leader = course.pipe.leader
            if leader not in leaders:
                continue
            if budget <= 0 or time.monotonic() - began >= _SECONDS:
                more.add(leader)
                continue
            turn = _Turn(course, budget, began + _SECONDS, self._may_go_on)
            is_done = self._attempt(turn, {*leaders})
            budget -= turn.processed
            if turn.processed and self._courses.holds(key[0]):  # of a tenant that was let go, nothing is to be left
                self._metrics.processed(course, turn.processed)
            if is_done is None:
                return set()
            if turn.processed or turn.came_to_end:
                self._troubles.are_over(key, leader)
            if not is_done:
                course.used_up_at = time.monotonic()  # its next turn begins with another leader
                more.add(leader)
        return more

    def _attempt(self, turn: _Turn, leaders: Iterable[str]) -> bool | None:
        """Return whether there is nothing more to do, or None when the follower is to have no turn for now."""
        course = turn.course
        try:
            return turn.take(follow(self._tenants, course.tenant, course.pipe))
        except BaseException as error:  # noqa: BLE001 (also SystemExit: a tenant's code must not end the process, or this thread)
            if _is_refusal(error, course.tenant):
                return None  # it is let go as soon as the registry's change is known here
            course.position = None
            if _is_outage(error):
                logger.warning("A follower waits for its database: %s", outage_of(error), extra=_extra(course.key))
                self._ready.block(course.key, leaders, _OUTAGE)
            else:
                self._troubles.met(error, course, turn.notification_id, leaders)
                if self._courses.holds(course.tenant.id):
                    self._metrics.failed(course)
            return None

    def _may_go_on(self, course: Course) -> bool:
        return self._may_work() and self._courses.holds(course.tenant.id)


class _Turn:
    """One follower behind one leader, for as long as the turn lasts."""

    def __init__(self, course: Course, budget: int, until: float, may_go_on: Callable[[Course], bool]) -> None:
        self.course = course
        self.processed = 0
        self.notification_id: int | None = None
        """The notification that is being processed."""
        self.came_to_end = False
        self._budget = budget
        self._until = until
        self._may_go_on = may_go_on

    def take(self, following: Following) -> bool:
        """Return whether there is nothing more to do: the follower has come to the end, or may not go on."""
        course = self.course
        doubt = course.doubt if course.doubt is not None and course.doubt.is_final else None
        # The course may be told to ask again for its position at any time.
        position = course.position
        if position is None:
            position = self._look(following, None)
        is_done = self._read(following, position)
        if self._may_go_on(course):
            is_done = self._compare(following) and is_done
        if self.came_to_end and doubt is not None:
            course.settled = max(course.settled, doubt.last)
            course.doubt = None
        return is_done

    def _look(self, following: Following, reached: int | None) -> int:
        """Ask for the recorded position; return it where others have moved it, otherwise the one that was reached."""
        recorded = following.position()
        # What nothing was made of need not be recorded.
        position = recorded
        if reached is not None and self.course.recorded <= recorded <= reached:
            position = reached
        self._resume(position, recorded)
        return position

    def _resume(self, position: int, recorded: int) -> None:
        """Go on from a position, with what is recorded now."""
        course = self.course
        if recorded < course.recorded:
            logger.warning(
                "The recorded position of follower %s was set back from %s to %s: it is followed from there",
                course.pipe.follower,
                course.recorded,
                recorded,
                extra={**_extra(course.key), "leader": course.pipe.leader},
            )
        course.position, course.recorded = position, recorded

    def _read(self, following: Following, position: int) -> bool:
        course = self.course
        # With topics, what is passed over need not be read again. Nothing appears later with an id up to this one.
        passed = following.last_id() if following.topics else 0
        for page in following.pages(position):
            for notification in page.wanted:
                if self.processed >= self._budget or time.monotonic() >= self._until:
                    return False
                if not self._may_go_on(course):
                    return True
                if not self._process(following, notification):
                    return False
            position = course.position = page.last_id
            if page.is_last:
                break
        course.position = max(position, passed)
        self.came_to_end = True
        return True

    def _compare(self, following: Following) -> bool:
        """Know what is recorded now, and record the position where it is due; return False when others have moved it.

        All up to it is processed, and nothing can appear there later.
        """
        course = self.course
        reached, is_due = course.position, course.is_to_be_compared
        if reached is None or not (is_due or (self.processed and reached != course.recorded)):
            return True
        course.is_to_be_compared = False
        position = self._look(following, reached)
        if is_due and course.recorded < position:
            position = self._record(following, position)
        return position == reached

    def _record(self, following: Following, position: int) -> int:
        try:
            following.record(position, self.course.recorded)
        except IntegrityError:
            if not self._is_moved(following, position):
                raise
        else:
            self._resume(position, position)
        return self.course.recorded

    def _process(self, following: Following, notification: Notification) -> bool:
        """Process one; return False when the position has been moved by others."""
        self.notification_id = notification.id
        try:
            following.process(notification, self.course.recorded)
        except IntegrityError:
            if not self._is_moved(following, notification.id):
                raise
            return False
        self.notification_id = None
        if following.records_all:
            self.course.recorded = notification.id
        elif not self.course.recorded:
            # From its first position on, one that is set back is noticed, also within this turn.
            self.course.recorded = following.position()
        self.course.position = notification.id
        self.course.processed += 1
        self.processed += 1
        return True

    def _is_moved(self, following: Following, target: int) -> bool:
        """Return whether others have moved the recorded position, so that ``target`` was refused; resume from there.

        It was set back, or another process works for the same tenant, after this one was stopped for a while.
        """
        recorded = following.position()
        if self.course.recorded <= recorded < target:
            return False
        self._resume(recorded, recorded)
        return True


def _is_refusal(error: BaseException, tenant: Tenant) -> bool:
    # A policy may ask for another tenant, and be refused that one: then it fails as by any other error.
    return isinstance(error, TenantUnavailable) and error.tenant in (tenant.slug, str(tenant.id))


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, PersistenceError):
        return isinstance(error, OperationalError | InterfaceError) or is_retryable(error)
    return isinstance(error, RegistryUnavailable | RegistryMissing)


def _extra(key: Key) -> dict[str, str]:
    return {"tenant_id": str(key[0]), "follower": key[1]}
