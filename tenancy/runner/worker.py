"""Workers: run one tenant's follower at a time, in slices of a bounded number of notifications."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import IntegrityError, InterfaceError, Notification, OperationalError, PersistenceError

from eventsourcing_sqlalchemy.background import Activity, keep_running
from eventsourcing_sqlalchemy.error_fields import error_fields
from eventsourcing_sqlalchemy.errors import describe, frames_of, is_retryable
from tenancy.errors import RegistryMissing, RegistryUnavailable, TenantUnavailable
from tenancy.following.follower import FollowerDriver, open_follower
from tenancy.instruments import instruments
from tenancy.metering.limiter import exempt_from_quotas
from tenancy.runner.assignments import Assignment, Assignments
from tenancy.runner.failures import outage_of
from tenancy.runner.quarantine import Quarantine

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant
    from tenancy.runner.ready_queue import Key, ReadyQueue

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

# A slice ends at either limit. A slow policy reaches the seconds first.
_NOTIFICATIONS: Final = 100
_SECONDS: Final = 0.25

# Seconds before a follower is retried when its database or the registry is unavailable.
_OUTAGE: Final = 0.5


class Worker:
    """Runs slices until a ready queue is closed. Each worker thread of its lane executes :meth:`run`."""

    def __init__(
        self,
        fleet: Fleet,
        assignments: Assignments,
        ready: ReadyQueue,
        quarantine: Quarantine,
        *,
        may_work: Callable[[], bool],
        activity: Activity | None = None,
    ) -> None:
        self._fleet = fleet
        self._assignments = assignments
        self._ready = ready
        self._quarantine = quarantine
        self._may_work = may_work
        self.activity = activity or Activity("workers", "Runner worker fails", logger)

    def run(self, stopping: threading.Event) -> None:
        """Run slices until the ready queue is closed. Exceptions in tenant code do not end the thread."""
        with exempt_from_quotas():  # a follower that is refused would be quarantined
            keep_running(self.activity, self._run_one, stopping)

    def _run_one(self) -> bool:
        taken = self._ready.take()
        if taken is None:
            return False
        key, leaders = taken
        more: set[str] = set()
        try:
            run = self._run_slice if instruments.tracer is None else instruments.tracer.turn(self._run_slice)
            more = run(key, leaders)
        except Exception as error:
            where = frames_of(error)[-1]
            extra = {**_extra(key), "event": "slice.failed", **error_fields(error)}
            logger.error("Slice failed: %s at %s", describe(error), where, extra=extra)  # noqa: TRY400 (no values)
            self._ready.block(key, leaders, _OUTAGE)
            raise
        finally:
            self._ready.done(key, more)
        return True

    def _run_slice(self, key: Key, leaders: Iterable[str]) -> set[str]:
        """Return the leaders that have more notifications to process."""
        more: set[str] = set()
        began = time.monotonic()
        budget = _NOTIFICATIONS
        for assignment in self._assignments.of(key):
            leader = assignment.pipe.leader
            if leader not in leaders or assignment.lacks_tables:
                continue
            if budget <= 0 or time.monotonic() - began >= _SECONDS:
                more.add(leader)
                continue
            slice_ = _Slice(assignment, budget, began + _SECONDS, self._may_go_on)
            is_done = self._attempt(slice_, {*leaders})
            budget -= slice_.processed
            # The metrics of a released tenant are gone, and must not reappear.
            if slice_.processed and instruments.counters is not None and self._assignments.holds(key[0]):
                instruments.counters.processed(*key, slice_.processed)
            if is_done is None:
                return set()
            if slice_.processed or slice_.reached_end:
                self._quarantine.clear(key, leader)
            if not is_done:
                assignment.used_up_at = time.monotonic()  # the next slice starts with another leader
                more.add(leader)
        return more

    def _attempt(self, slice_: _Slice, leaders: Iterable[str]) -> bool | None:
        """Return whether the follower is done, or None when it must not run for now."""
        assignment = slice_.assignment
        try:
            return slice_.take(open_follower(self._fleet, assignment.tenant, assignment.pipe))
        except BaseException as error:  # noqa: BLE001 (also SystemExit: a tenant's code must not end the process, or this thread)
            if _is_refusal(error, assignment.tenant):
                return None  # the coordinator releases it once it reads the registry change
            assignment.position = None
            if _is_outage(error):
                extra = {**_extra(assignment.key), "event": "follower.paused", **error_fields(error)}
                logger.warning("Follower paused, database unavailable: %s", outage_of(error), extra=extra)
                self._ready.block(assignment.key, leaders, _OUTAGE)
            else:
                self._quarantine.record_failure(error, assignment, slice_.notification_id, leaders)
                if instruments.counters is not None and self._assignments.holds(assignment.tenant.id):
                    instruments.counters.failed(*assignment.key)
            return None

    def _may_go_on(self, assignment: Assignment) -> bool:
        return self._may_work() and self._assignments.holds(assignment.tenant.id)


class _Slice:
    """The part of a slice that a follower spends on one leader."""

    def __init__(
        self, assignment: Assignment, budget: int, until: float, may_go_on: Callable[[Assignment], bool]
    ) -> None:
        self.assignment = assignment
        self.processed = 0
        self.notification_id: int | None = None
        """The notification being processed."""
        self.reached_end = False
        self._budget = budget
        self._until = until
        self._may_go_on = may_go_on
        # A batch up to this id has failed.
        self._one_by_one_up_to = 0

    def take(self, driver: FollowerDriver) -> bool:
        """Return whether the follower is done: it has reached the end, or must stop."""
        assignment = self.assignment
        pending_gap = (
            assignment.pending_gap if assignment.pending_gap is not None and assignment.pending_gap.is_final else None
        )
        # The coordinator may reset the position at any time.
        position = assignment.position
        if position is None:
            position = self._look(driver, None)
        is_done = self._read(driver, position)
        if self._may_go_on(assignment):
            is_done = self._compare(driver) and is_done
        if self.reached_end and pending_gap is not None:
            assignment.settled_up_to = max(assignment.settled_up_to, pending_gap.last)
            assignment.pending_gap = None
        return is_done

    def _look(self, driver: FollowerDriver, reached: int | None) -> int:
        """Read the recorded position; return it if it was moved elsewhere, otherwise ``reached``."""
        recorded = driver.position()
        # Positions of ignored notifications need not be recorded.
        position = recorded
        if reached is not None and self.assignment.recorded <= recorded <= reached:
            position = reached
        self._resume(position, recorded)
        return position

    def _resume(self, position: int, recorded: int) -> None:
        """Continue from a position, and remember the recorded one."""
        assignment = self.assignment
        if recorded < assignment.recorded:
            logger.warning(
                "Recorded position of follower %s was set back from %s to %s: resuming from there",
                assignment.pipe.follower,
                assignment.recorded,
                recorded,
                extra={**_extra(assignment.key), "event": "position.set_back", "leader": assignment.pipe.leader},
            )
        assignment.position, assignment.recorded = position, recorded

    def _read(self, driver: FollowerDriver, position: int) -> bool:
        assignment = self.assignment
        # With topics, skipped notifications need not be read again. No notification up to this id can appear later.
        passed = driver.last_id() if driver.topics else 0
        for page in driver.pages(position):
            wanted = list(page.wanted)
            while wanted:
                if self.processed >= self._budget or time.monotonic() >= self._until:
                    return False
                if not self._may_go_on(assignment):
                    return True
                processed = self.processed
                size = driver.batch_size if wanted[0].id > self._one_by_one_up_to else 1
                batch = wanted[: min(size, self._budget - processed)]
                if not (self._process_batch(driver, batch) if len(batch) > 1 else self._process(driver, batch[0])):
                    return False
                del wanted[: self.processed - processed]
            position = assignment.position = page.last_id
            if page.is_last:
                break
        assignment.position = max(position, passed)
        self.reached_end = True
        return True

    def _compare(self, driver: FollowerDriver) -> bool:
        """Compare with the recorded position, and record the position if that is due.

        Return False when the recorded position was moved elsewhere. Everything up to the position is processed, and no
        notification can appear there later.
        """
        assignment = self.assignment
        reached, is_due = assignment.position, assignment.is_comparison_due
        if reached is None or not (is_due or (self.processed and reached != assignment.recorded)):
            return True
        assignment.is_comparison_due = False
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

    def _process_batch(self, driver: FollowerDriver, batch: Sequence[Notification]) -> bool:
        """Process a batch in one transaction, or if that fails, its first notification, as :meth:`_process` does."""
        assignment = self.assignment
        try:
            done = driver.process_batch(batch, assignment.recorded, self._has_time)
        except (Exception, SystemExit):  # noqa: BLE001 (the one that fails raises it again)
            self._one_by_one_up_to = batch[-1].id
            return self._process(driver, batch[0])
        assignment.position = assignment.recorded = done[-1].id
        assignment.processed += len(done)
        self.processed += len(done)
        return True

    def _has_time(self) -> bool:
        return time.monotonic() < self._until and self._may_go_on(self.assignment)

    def _process(self, driver: FollowerDriver, notification: Notification) -> bool:
        """Process one notification; return False when the recorded position was moved elsewhere."""
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
            # From the first recorded position on, detect one that is set back, even within this slice.
            self.assignment.recorded = driver.position()
        self.assignment.position = notification.id
        self.assignment.processed += 1
        self.processed += 1
        return True

    def _is_moved(self, driver: FollowerDriver, target: int) -> bool:
        """Return whether ``target`` was refused because the recorded position was moved; if so, resume from there.

        An operator has set it back, or this process was paused and another one has taken over the tenant.
        """
        recorded = driver.position()
        if self.assignment.recorded <= recorded < target:
            return False
        self._resume(recorded, recorded)
        return True


def _is_refusal(error: BaseException, tenant: Tenant) -> bool:
    # A policy may request another tenant and be refused. That is an ordinary failure of the policy.
    return isinstance(error, TenantUnavailable) and error.tenant in (tenant.slug, str(tenant.id))


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, PersistenceError):
        return isinstance(error, OperationalError | InterfaceError) or is_retryable(error)
    return isinstance(error, RegistryUnavailable | RegistryMissing)


def _extra(key: Key) -> dict[str, str]:
    return {"tenant_id": str(key[0]), "follower": key[1]}
