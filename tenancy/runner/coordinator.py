"""The coordinator thread: leases, registry changes, failures, positions and the sweep."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from eventsourcing_sqlalchemy.background import Activity, keep_running
from tenancy.instruments import instruments
from tenancy.runner.failures import outage_of
from tenancy.runner.leases import bucket_of
from tenancy.runner.sweep import MIN_SWEEP_INTERVAL, SWEEP_INTERVAL, SWEEP_INTERVAL_WITHOUT_WAKEUPS, Sweep

if TYPE_CHECKING:
    from tenancy.application_cache import ApplicationCache
    from tenancy.registry.cache import RegistryCache
    from tenancy.runner.assignments import Assignment, Assignments
    from tenancy.runner.lanes import Lanes
    from tenancy.runner.leases import Leases
    from tenancy.runner.quarantine import Quarantine
    from tenancy.runner.view_watch import ViewWatch

__all__ = ["Coordinator"]

logger = logging.getLogger(__name__)

# Intervals of the jobs, in seconds.
_REGISTRY: Final = 0.4
_FAILURES: Final = 1.0
# Positions read at a time, before other threads may use the registry's connection.
_LOCATE_BATCH: Final = 200


class TableListener(Protocol):
    """Receives the commits to all tables of a database."""

    @property
    def receives_remote(self) -> bool:
        """Whether it receives commits of other processes now."""

    @property
    def activities(self) -> Sequence[Activity]:
        """The background activities that receive commits."""


class _Job:
    """A task that the thread runs periodically."""

    def __init__(self, name: str, run: Callable[[], None], interval: Callable[[], float]) -> None:
        self.activity = Activity(name, f"Runner job {name!r} fails", logger, outage_of)
        self.run = run
        self.interval = interval
        self.due = -math.inf


class Coordinator:
    """Keeps assignments, failures and the ready queue up to date. Its thread executes :meth:`run`."""

    def __init__(
        self,
        *,
        registry_cache: RegistryCache,
        application_cache: ApplicationCache,
        assignments: Assignments,
        ready: Lanes,
        leases: Leases,
        quarantine: Quarantine,
        sweep: Sweep,
        sweeps_registry: bool,
        activities: Sequence[Activity] = (),
        views: Sequence[ViewWatch] = (),
    ) -> None:
        self._registry_cache = registry_cache
        self._application_cache = application_cache
        self._assignments = assignments
        self._ready = ready
        self._leases = leases
        self._quarantine = quarantine
        self._sweep = sweep
        # Whether the sweep also uses the registry's connection.
        self._sweeps_registry = sweeps_registry
        self._table_listener: TableListener | None = None
        self._running = Activity("coordinator", "The runner's coordinator fails", logger)
        self._jobs = [
            _Job("leases", self._renew_leases, lambda: self._leases.interval),
            _Job("changes", self._apply_changes, lambda: _REGISTRY),
            _Job("failures", self._quarantine.refresh, lambda: _FAILURES),
            _Job("positions", self._locate, lambda: math.inf),
            _Job("sweep", self._run_sweep, self._sweep_interval),
        ]
        self._activities = (self._running, *(job.activity for job in self._jobs), *activities)
        self._stopping = threading.Event()
        self._alarm = threading.Event()
        self._is_sweep_due = False
        # Guards the set, for in-memory operations only.
        self._lock = threading.Lock()
        self._changed: set[UUID] = set()
        self._was_valid = False
        self._has_expired = False
        self._to_locate: list[Assignment] = []
        # Apart: the views over all tenants may be in databases of their own, which may be down or slow.
        self._watch_of = {follower: each for each in views for follower in each.followers}
        self._views = views

    # -- called by other threads --

    def on_commit(self, keys: Iterable[int] | None) -> None:
        """Wake the followers that read these tables; None means that any table may have changed."""
        if keys is None:
            self.request_sweep()
            return
        for key in keys:
            for assignment in self._assignments.behind(key):
                self._ready.add(assignment.key, (assignment.pipe.leader,))

    def use_listener(self, table_listener: TableListener) -> None:
        """Set the listener. Its state determines the sweep interval."""
        self._table_listener = table_listener

    def changed(self, tenant_ids: set[UUID]) -> None:
        """Record that tenants have changed, and wake up the thread."""
        with self._lock:
            self._changed |= tenant_ids
        self._alarm.set()

    def health(self) -> Mapping[str, str | None]:
        """Return each background activity, with its current error class or None."""
        listening = () if self._table_listener is None else self._table_listener.activities
        views = {each.name: each.error for each in self._views}
        return {each.name: each.error for each in (*self._activities, *listening)} | views

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()
        self._alarm.set()

    # -- the thread --

    def start(self) -> None:
        """Read the tenants and take the first leases. Errors are raised, not retried."""
        self._leases.create_rows()
        self._registry_cache.refresh()
        self._apply_reassignment(self._assignments.update(self._registry_cache.read().values()))
        self._renew_leases()

    def run(self) -> None:
        """Run the jobs until the coordinator is stopped. Jobs are retried during an outage."""
        keep_running(self._running, self._run_due, self._stopping)

    def _run_due(self) -> bool:
        now = time.monotonic()
        for job in self._jobs:
            is_requested = job.run == self._run_sweep and self._is_sweep_due
            is_requested |= job.run == self._apply_changes and bool(self._changed)
            is_requested |= job.run == self._locate and self._was_valid and bool(self._to_locate)
            if (now >= job.due or is_requested) and not self._stopping.is_set():
                self._attempt(job)
                job.due = time.monotonic() + job.interval()
        self._alarm.wait(max(0.0, min(job.due for job in self._jobs) - time.monotonic()))
        self._alarm.clear()
        if self._is_sweep_due:
            self._stopping.wait(MIN_SWEEP_INTERVAL)
        return not self._stopping.is_set()

    def _attempt(self, job: _Job) -> None:
        elsewhere = [self._apply_changes]
        if not self._sweeps_registry:
            elsewhere += [self._run_sweep, self._locate]
        alone = nullcontext() if job.run in elsewhere else self._registry_cache.alone()
        try:
            with alone:
                job.run()
        except Exception as error:  # noqa: BLE001 (any error: the job runs again after its interval)
            job.activity.failed(error)
        else:
            job.activity.works()

    def _sweep_interval(self) -> float:
        receives_remote = self._table_listener is not None and self._table_listener.receives_remote
        return SWEEP_INTERVAL if receives_remote else SWEEP_INTERVAL_WITHOUT_WAKEUPS

    def _renew_leases(self) -> None:
        failing = {name: error for name, error in self.health().items() if error is not None}
        self._leases.failing = ", ".join(f"{name} ({error})" for name, error in failing.items()) or None
        try:
            self._leases.tick(lambda bucket: bucket in map(bucket_of, self._ready.running()))
        finally:
            is_valid = self._leases.are_valid()
            self._log_lease_state(is_valid=is_valid)
            if is_valid and not self._was_valid:
                # Followers that were taken without valid leases have not been processed.
                self._add(self._assignments.all())
                for each in self._views:
                    each.wake()
            self._was_valid = is_valid
        self._apply_reassignment(self._assignments.hold(self._leases.held))

    def quarantined(self) -> int:
        """Return the number of quarantined followers of this process."""
        return sum(1 for assignment in self._assignments.all() if self._is_quarantined(assignment))

    def _log_lease_state(self, *, is_valid: bool) -> None:
        if self._was_valid and not is_valid:
            message = "Leases expired: processing is paused until the registry accepts writes."
            logger.warning(message, extra={"event": "leases.expired"})
            self._has_expired = True
        elif is_valid and self._has_expired:
            logger.warning("Leases renewed: processing resumes.", extra={"event": "leases.renewed"})
            self._has_expired = False

    def _is_quarantined(self, assignment: Assignment) -> bool:
        failure = self._quarantine.get(assignment.key)
        return failure is not None and failure.is_quarantined and failure.leader == assignment.pipe.leader

    def _apply_changes(self) -> None:
        self._registry_cache.refresh()
        with self._lock:
            changed, self._changed = self._changed, set()
        if changed:
            try:
                found = self._registry_cache.read(list(changed))
            except BaseException:
                with self._lock:
                    self._changed |= changed  # without the alarm, so they are read again after a pause
                raise
            self._apply_reassignment(self._assignments.update(found.values(), changed - found.keys()))

    def _apply_reassignment(self, acquired_and_released: tuple[list[Assignment], list[UUID]]) -> None:
        acquired, released = acquired_and_released
        for tenant_id in released:
            self._application_cache.forget(tenant_id)
        if released:
            self._quarantine.forget(released)
            if instruments.counters is not None:
                instruments.counters.forget(released)
        for tenant_id in released:
            # After its failures: until then, a running slice may record one and block its follower.
            self._ready.drop(tenant_id)
        for assignment in acquired:
            if assignment.tracking is not None:
                self._to_locate.append(assignment)
            else:
                self._watch_of[assignment.pipe.follower].locate([assignment])
        if acquired and self._was_valid:
            self._quarantine.refresh()
            self._alarm.set()

    def request_sweep(self) -> None:
        """Let the thread look for followers with work soon."""
        self._is_sweep_due = True
        self._alarm.set()

    def _locate(self) -> None:
        waiting = self._to_locate
        if not self._was_valid or not waiting:
            return
        # In batches: no thread can read registry changes while this uses the registry's connection.
        batch = waiting[:_LOCATE_BATCH]
        del waiting[:_LOCATE_BATCH]
        new = [assignment for assignment in batch if assignment.position is None]
        try:
            self._sweep.locate(new)
        finally:
            # The first slice reads a position that is still unknown.
            self._add([assignment for assignment in batch if assignment not in new or assignment.position is None])
            self._is_sweep_due = self._is_sweep_due or not waiting
            self._alarm.set()

    def _run_sweep(self) -> None:
        self._is_sweep_due = False
        self._sweep.run()

    def _add(self, assignments: Iterable[Assignment]) -> None:
        for assignment in assignments:
            self._ready.add(assignment.key, (assignment.pipe.leader,))
