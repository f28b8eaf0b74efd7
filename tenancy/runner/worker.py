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
from tenancy.runner.assignments import Assignment, Assignments
from tenancy.runner.failures import frames_of, outage_of
from tenancy.runner.follower import FollowerDriver, open_follower
from tenancy.runner.quarantine import Quarantine

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant
    from tenancy.runner.metrics import Metrics
    from tenancy.runner.ready_queue import Key, ReadyQueue

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

# A turn ends when either is used up. A slow policy uses up the seconds.
_NOTIFICATIONS: Final = 100
_SECONDS: Final = 0.25

# How long a follower waits whose database, or the registry, cannot be reached.
_OUTAGE: Final = 0.5


class Worker:
    """Takes turns until the queue is closed; ``run`` is what each worker thread does."""

    def __init__(
        self,
        fleet: Fleet,
        assignments: Assignments,
        ready: ReadyQueue,
        quarantine: Quarantine,
        *,
        metrics: Metrics,
        may_work: Callable[[], bool],
    ) -> None:
        self._fleet = fleet
        self._assignments = assignments
        self._ready = ready
        self._quarantine = quarantine
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
        for assignment in self._assignments.of(key):
            leader = assignment.pipe.leader
            if leader not in leaders:
                continue
            if budget <= 0 or time.monotonic() - began >= _SECONDS:
                more.add(leader)
                continue
            slice_ = _Slice(assignment, budget, began + _SECONDS, self._may_go_on)
            is_done = self._attempt(slice_, {*leaders})
            budget -= slice_.processed
            if slice_.processed and self._assignments.holds(
                key[0]
            ):  # of a tenant that was let go, nothing is to be left
                self._metrics.processed(assignment, slice_.processed)
            if is_done is None:
                return set()
            if slice_.processed or slice_.came_to_end:
                self._quarantine.are_over(key, leader)
            if not is_done:
                assignment.used_up_at = time.monotonic()  # its next turn begins with another leader
                more.add(leader)
        return more

    def _attempt(self, slice_: _Slice, leaders: Iterable[str]) -> bool | None:
        """Return whether there is nothing more to do, or None when the follower is to have no turn for now."""
        assignment = slice_.assignment
        try:
            return slice_.take(open_follower(self._fleet, assignment.tenant, assignment.pipe))
        except BaseException as error:  # noqa: BLE001 (also SystemExit: a tenant's code must not end the process, or this thread)
            if _is_refusal(error, assignment.tenant):
                return None  # it is let go as soon as the registry's change is known here
            assignment.position = None
            if _is_outage(error):
                logger.warning("A follower waits for its database: %s", outage_of(error), extra=_extra(assignment.key))
                self._ready.block(assignment.key, leaders, _OUTAGE)
            else:
                self._quarantine.met(error, assignment, slice_.notification_id, leaders)
                if self._assignments.holds(assignment.tenant.id):
                    self._metrics.failed(assignment)
            return None

    def _may_go_on(self, assignment: Assignment) -> bool:
        return self._may_work() and self._assignments.holds(assignment.tenant.id)


class _Slice:
    """One follower behind one leader, for as long as the turn lasts."""

    def __init__(
        self, assignment: Assignment, budget: int, until: float, may_go_on: Callable[[Assignment], bool]
    ) -> None:
        self.assignment = assignment
        self.processed = 0
        self.notification_id: int | None = None
        """The notification that is being processed."""
        self.came_to_end = False
        self._budget = budget
        self._until = until
        self._may_go_on = may_go_on

    def take(self, driver: FollowerDriver) -> bool:
        """Return whether there is nothing more to do: the follower has come to the end, or may not go on."""
        assignment = self.assignment
        pending_gap = (
            assignment.pending_gap if assignment.pending_gap is not None and assignment.pending_gap.is_final else None
        )
        # The course may be told to ask again for its position at any time.
        position = assignment.position
        if position is None:
            position = self._look(driver, None)
        is_done = self._read(driver, position)
        if self._may_go_on(assignment):
            is_done = self._compare(driver) and is_done
        if self.came_to_end and pending_gap is not None:
            assignment.settled_up_to = max(assignment.settled_up_to, pending_gap.last)
            assignment.pending_gap = None
        return is_done

    def _look(self, driver: FollowerDriver, reached: int | None) -> int:
        """Ask for the recorded position; return it where others have moved it, otherwise the one that was reached."""
        recorded = driver.position()
        # What nothing was made of need not be recorded.
        position = recorded
        if reached is not None and self.assignment.recorded <= recorded <= reached:
            position = reached
        self._resume(position, recorded)
        return position

    def _resume(self, position: int, recorded: int) -> None:
        """Go on from a position, with what is recorded now."""
        assignment = self.assignment
        if recorded < assignment.recorded:
            logger.warning(
                "The recorded position of follower %s was set back from %s to %s: it is followed from there",
                assignment.pipe.follower,
                assignment.recorded,
                recorded,
                extra={**_extra(assignment.key), "leader": assignment.pipe.leader},
            )
        assignment.position, assignment.recorded = position, recorded

    def _read(self, driver: FollowerDriver, position: int) -> bool:
        assignment = self.assignment
        # With topics, what is passed over need not be read again. Nothing appears later with an id up to this one.
        passed = driver.last_id() if driver.topics else 0
        for page in driver.pages(position):
            for notification in page.wanted:
                if self.processed >= self._budget or time.monotonic() >= self._until:
                    return False
                if not self._may_go_on(assignment):
                    return True
                if not self._process(driver, notification):
                    return False
            position = assignment.position = page.last_id
            if page.is_last:
                break
        assignment.position = max(position, passed)
        self.came_to_end = True
        return True

    def _compare(self, driver: FollowerDriver) -> bool:
        """Know what is recorded now, and record the position where it is due; return False when others have moved it.

        All up to it is processed, and nothing can appear there later.
        """
        assignment = self.assignment
        reached, is_due = assignment.position, assignment.is_to_be_compared
        if reached is None or not (is_due or (self.processed and reached != assignment.recorded)):
            return True
        assignment.is_to_be_compared = False
        position = self._look(driver, reached)
        if is_due and assignment.recorded < position:
            position = self._record(driver, position)
        return position == reached

    def _record(self, driver: FollowerDriver, position: int) -> int:
        try:
            driver.record(position, self.assignment.recorded)
        except IntegrityError:
            if not self._is_moved(driver, position):
                raise
        else:
            self._resume(position, position)
        return self.assignment.recorded

    def _process(self, driver: FollowerDriver, notification: Notification) -> bool:
        """Process one; return False when the position has been moved by others."""
        self.notification_id = notification.id
        try:
            driver.process(notification, self.assignment.recorded)
        except IntegrityError:
            if not self._is_moved(driver, notification.id):
                raise
            return False
        self.notification_id = None
        if driver.records_all:
            self.assignment.recorded = notification.id
        elif not self.assignment.recorded:
            # From its first position on, one that is set back is noticed, also within this turn.
            self.assignment.recorded = driver.position()
        self.assignment.position = notification.id
        self.assignment.processed += 1
        self.processed += 1
        return True

    def _is_moved(self, driver: FollowerDriver, target: int) -> bool:
        """Return whether others have moved the recorded position, so that ``target`` was refused; resume from there.

        It was set back, or another process works for the same tenant, after this one was stopped for a while.
        """
        recorded = driver.position()
        if self.assignment.recorded <= recorded < target:
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
