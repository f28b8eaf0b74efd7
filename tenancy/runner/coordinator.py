"""The one thread that sees to everything but the turns: leases, changes of tenants, failures, and the sweep."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final
from uuid import UUID

from eventsourcing_sqlalchemy.background import Activity, keep_running
from tenancy.runner.failures import outage_of
from tenancy.runner.leases import bucket_of

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.notifications.wakeups import TableListener
    from tenancy.application_cache import ApplicationCache
    from tenancy.registry.cache import RegistryCache
    from tenancy.runner.assignments import Assignment, Assignments
    from tenancy.runner.leases import Leases
    from tenancy.runner.metrics import Metrics
    from tenancy.runner.quarantine import Quarantine
    from tenancy.runner.ready_queue import ReadyQueue
    from tenancy.runner.sweep import Sweep

__all__ = ["Coordinator"]

logger = logging.getLogger(__name__)

# How often things are looked at. Seconds.
_REGISTRY: Final = 0.4
_FAILURES: Final = 1.0
_METRICS: Final = 1.0
_SWEEP: Final = 2.0
# Of how many followers the positions are looked up before others may use the registry's connection.
_LOCATED_AT_ONCE: Final = 200
_SWEEP_WHEN_DEAF: Final = 0.5
# Between two sweeps that somebody asks for: where nobody can say which table was written to, each commit does.
_SWEEP_AT_LEAST: Final = 0.02


class _Job:
    """Something that the thread does now and then."""

    def __init__(self, name: str, run: Callable[[], None], interval: Callable[[], float]) -> None:
        self.activity = Activity(name, f"The runner goes on without its {name}", logger, outage_of)
        self.run = run
        self.interval = interval
        self.due = -math.inf


class Coordinator:
    """Keeps what the workers work at up to date. ``run`` is what the thread does."""

    def __init__(
        self,
        *,
        registry_cache: RegistryCache,
        applications: ApplicationCache,
        assignments: Assignments,
        ready: ReadyQueue,
        leases: Leases,
        quarantine: Quarantine,
        sweep: Sweep,
        metrics: Metrics,
        sweeps_registry: bool,
        activities: Sequence[Activity] = (),
    ) -> None:
        self._registry_cache = registry_cache
        self._applications = applications
        self._assignments = assignments
        self._ready = ready
        self._leases = leases
        self._quarantine = quarantine
        self._sweep = sweep
        self._metrics = metrics
        # Whether the sweep, too, uses the connection of the registry.
        self._sweeps_registry = sweeps_registry
        self._table_listener: TableListener | None = None
        self._running = Activity("coordinator", "The runner's coordinator fails", logger)
        self._jobs = [
            _Job("metrics", self._measure, lambda: _METRICS),
            _Job("leases", self._keep_leases, lambda: self._leases.interval),
            _Job("changes", self._see_changes, lambda: _REGISTRY),
            _Job("failures", self._quarantine.refresh, lambda: _FAILURES),
            _Job("positions", self._locate, lambda: math.inf),
            _Job("sweep", self._run_sweep, self._sweep_interval),
        ]
        self._activities = (self._running, *(job.activity for job in self._jobs), *activities)
        self._stopping = threading.Event()
        self._alarm = threading.Event()
        self._is_sweep_due = False
        # Guards the set, for operations in memory only.
        self._lock = threading.Lock()
        self._changed: set[UUID] = set()
        self._was_valid = False
        self._has_ended = False
        self._unlocated: list[Assignment] = []

    # -- told by others --

    def on_commit(self, keys: Iterable[int] | None) -> None:
        """Let those look who read these tables; None stands for any table."""
        if keys is None:
            self._is_sweep_due = True
            self._alarm.set()
            return
        for key in keys:
            for assignment in self._assignments.behind(key):
                self._ready.add(assignment.key, (assignment.pipe.leader,))

    def use_listener(self, table_listener: TableListener) -> None:
        """Know whether wake-ups of other processes are heard."""
        self._table_listener = table_listener

    def changed(self, tenant_ids: set[UUID]) -> None:
        """Know that something has happened to tenants."""
        with self._lock:
            self._changed |= tenant_ids
        self._alarm.set()

    def health(self) -> Mapping[str, str | None]:
        """Return what is done in the background, with the class of the error where it fails."""
        heard_by = () if self._table_listener is None else self._table_listener.activities
        return {activity.name: activity.error for activity in (*self._activities, *heard_by)}

    def stop(self) -> None:
        """End the thread soon."""
        self._stopping.set()
        self._alarm.set()

    # -- the thread --

    def start(self) -> None:
        """Learn which tenants there are, and get the first leases; raises what keeps it from doing so."""
        self._leases.make()
        self._registry_cache.refresh()
        self._follow(self._assignments.update(self._registry_cache.read().values()))
        self._keep_leases()

    def run(self) -> None:
        """Keep things up to date until it is stopped; an outage is waited for."""
        keep_running(self._running, self._run_due, self._stopping)

    def _run_due(self) -> bool:
        now = time.monotonic()
        for job in self._jobs:
            is_asked_for = job.run == self._run_sweep and self._is_sweep_due
            is_asked_for |= job.run == self._see_changes and bool(self._changed)
            is_asked_for |= job.run == self._locate and self._was_valid and bool(self._unlocated)
            if (now >= job.due or is_asked_for) and not self._stopping.is_set():
                self._attempt(job)
                job.due = time.monotonic() + job.interval()
        self._alarm.wait(max(0.0, min(job.due for job in self._jobs) - time.monotonic()))
        self._alarm.clear()
        if self._is_sweep_due:
            self._stopping.wait(_SWEEP_AT_LEAST)
        return not self._stopping.is_set()

    def _attempt(self, job: _Job) -> None:
        elsewhere = [self._measure, self._see_changes]
        if not self._sweeps_registry:
            elsewhere += [self._run_sweep, self._locate]
        alone = nullcontext() if job.run in elsewhere else self._registry_cache.alone()
        try:
            with alone:
                job.run()
        except Exception as error:  # noqa: BLE001 (whatever it is: it is done again after its interval)
            job.activity.failed(error)
        else:
            job.activity.works()

    def _sweep_interval(self) -> float:
        hears = self._table_listener is not None and self._table_listener.receives_remote
        return _SWEEP if hears else _SWEEP_WHEN_DEAF

    def _keep_leases(self) -> None:
        failing = {name: error for name, error in self.health().items() if error is not None}
        self._leases.failing = ", ".join(f"{name} ({error})" for name, error in failing.items()) or None
        try:
            self._leases.tick(lambda bucket: bucket in map(bucket_of, self._ready.running()))
        finally:
            is_valid = self._leases.are_valid()
            self._say_whether_it_works(is_valid=is_valid)
            if is_valid and not self._was_valid:
                # Whoever was ready meanwhile has not been let work.
                self._add(self._assignments.all())
            self._was_valid = is_valid
        self._follow(self._assignments.hold(self._leases.held))

    def _measure(self) -> None:
        self._metrics.health(self.health())
        stopped = sum(1 for assignment in self._assignments.all() if self._is_stopped(assignment))
        self._metrics.state(tenants=len(self._assignments.tenants), ready=len(self._ready), quarantined=stopped)

    def _say_whether_it_works(self, *, is_valid: bool) -> None:
        if self._was_valid and not is_valid:
            logger.warning("The leases have ended: nothing is processed until the registry takes writes again.")
            self._has_ended = True
        elif is_valid and self._has_ended:
            logger.warning("The leases are valid again: followers go on.")
            self._has_ended = False

    def _is_stopped(self, assignment: Assignment) -> bool:
        failure = self._quarantine.get(assignment.key)
        return failure is not None and failure.is_quarantined and failure.leader == assignment.pipe.leader

    def _see_changes(self) -> None:
        self._registry_cache.refresh()
        with self._lock:
            changed, self._changed = self._changed, set()
        if changed:
            try:
                found = self._registry_cache.read(list(changed))
            except BaseException:
                with self._lock:
                    self._changed |= changed  # without the alarm: they are asked for again after a pause
                raise
            self._follow(self._assignments.update(found.values(), changed - found.keys()))

    def _follow(self, begun_and_ended: tuple[list[Assignment], list[UUID]]) -> None:
        begun, ended = begun_and_ended
        for tenant_id in ended:
            self._applications.forget(tenant_id)
        if ended:
            self._quarantine.forget(ended)
            self._metrics.forget(ended)
        for tenant_id in ended:
            # After its failures: a turn that is being taken may have met one until then, and let its follower wait.
            self._ready.drop(tenant_id)
        self._unlocated += begun
        if begun and self._was_valid:
            self._quarantine.refresh()
            self._alarm.set()

    def _locate(self) -> None:
        if not self._was_valid:
            return
        # Not all at once: while the registry's connection is used for it, nobody learns what has changed.
        begun, self._unlocated = self._unlocated[:_LOCATED_AT_ONCE], self._unlocated[_LOCATED_AT_ONCE:]
        new = [assignment for assignment in begun if assignment.position is None]
        try:
            self._sweep.locate(new)
        finally:
            # A recorded position that is not known is asked for in the first turn.
            self._add([assignment for assignment in begun if assignment not in new or assignment.position is None])
            self._is_sweep_due = self._is_sweep_due or not self._unlocated
            self._alarm.set()

    def _run_sweep(self) -> None:
        self._is_sweep_due = False
        self._sweep.run()

    def _add(self, assignments: Iterable[Assignment]) -> None:
        for assignment in assignments:
            self._ready.add(assignment.key, (assignment.pipe.leader,))
