"""The runner: run all tenants' followers and projections, sharing them with other processes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from eventsourcing_sqlalchemy.background import Activity
from tenancy.arguments import check_type
from tenancy.errors import NotCaughtUp, TenancyError
from tenancy.following.follower import FollowerDriver, open_follower
from tenancy.following.pipes import Pipe, Pipes
from tenancy.model.application_spec import encodings_of
from tenancy.model.tenant import Tenant
from tenancy.registry.lookup import find_tenant
from tenancy.runner.assignments import Assignments
from tenancy.runner.coordinator import Coordinator
from tenancy.runner.failures import Failure, FailureStore
from tenancy.runner.lags import FollowerLag
from tenancy.runner.lanes import Lanes
from tenancy.runner.leases import Leases, bucket_of
from tenancy.runner.monitor import FollowerMonitor, FollowerStatus
from tenancy.runner.positions import RecordedPositions
from tenancy.runner.quarantine import Quarantine
from tenancy.runner.reacting import ReactionWorker
from tenancy.runner.sweep import Sweep
from tenancy.runner.usage import UsageRecorder
from tenancy.runner.view_reads import call_in_time
from tenancy.runner.view_watch import ViewWatch
from tenancy.runner.worker import Worker

if TYPE_CHECKING:
    from tenancy.fleet import Fleet

__all__ = ["Runner"]

logger = logging.getLogger(__name__)

_DRAIN: Final = 30.0
_WATCHING: Final = 1.0
# Seconds for the last answer of a view's database.
_ANSWER: Final = 1.0
# A rollup that is cut off stores nothing, and the next one counts the same.
_DRAIN_USAGE: Final = 1.0
_POLL_FIRST: Final = 0.005
_POLL_MAX: Final = 0.1


class Runner:
    """The runner that ``tenants.runner()`` returns. Safe to use from many threads. Start and stop it once.

    ``workers`` is the number of worker threads. Other processes take over this one's tenants after ``lease_seconds``
    without a renewal. A follower that fails at a notification is retried with growing pauses, and quarantined after
    ``max_attempts`` attempts.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        workers: int,
        lease_seconds: float,
        max_attempts: int,
    ) -> None:
        check_type("workers", workers, int, "a number")
        check_type("lease_seconds", lease_seconds, (int, float), "a number of seconds")
        check_type("max_attempts", max_attempts, int, "a number")
        if workers < 1:
            msg = f"The number of workers is invalid: {workers}."
            raise TenancyError(msg, remedy="Pass at least 1.")
        if not fleet.applications:
            msg = "The runner needs the application code, but no applications are registered."
            raise TenancyError(msg, remedy="Pass them: Tenancy(system=...), or --app on the command line.")
        self.workers = workers
        self._fleet = fleet
        self._registry_cache = registry_cache = fleet.registry_cache
        self._shard = shard = fleet.shard
        self._pipes = Pipes(fleet.application_specs(), fleet.cross_tenant)
        if not self._pipes.all and not len(fleet.reactions):
            msg = "The runner has nothing to do: no application follows another, and no projection is registered."
            remedy = (
                "Pass them: Tenancy(system=...) with pipes, tenants.project(...) or tenants.project_across(...). Or "
                "register reactions: @tenants.after(...)."
            )
            raise TenancyError(msg, remedy=remedy)
        self._assignments = Assignments(self._pipes, shard.default_schema_of, bucket_of)
        # A tenant with many followers uses at most half of the workers.
        per_tenant = max(1, workers // 2)
        self._lanes = Lanes(fleet.cross_tenant, per_tenant, self._assignments.weight_of)
        self._leases = Leases(registry_cache.registry, lease_seconds)
        self._failure_store = FailureStore(registry_cache.registry)
        self._quarantine = Quarantine(self._failure_store, self._assignments, self._lanes, max_attempts)
        # In the same database, use the registry's connection, and leave the pooled ones to the workers.
        is_same = fleet.settings.registry_is_beside
        datastore = registry_cache.registry.datastore if is_same else shard.datastore
        positions = RecordedPositions(datastore, fleet.cross_tenant)
        sweep = Sweep(datastore, positions, self._assignments, self._lanes)
        activity = Activity("workers", "Runner worker fails", logger)
        self._workers = [
            Worker(
                fleet,
                self._assignments,
                queue,
                self._quarantine,
                may_work=self._may_work,
                activity=activity,
            )
            for queue in self._lanes
        ]
        self._views = [
            ViewWatch(
                name,
                followers,
                positions=positions,
                assignments=self._assignments,
                ready=self._lanes,
                may_work=self._may_work,
                request_sweep=lambda: self._coordinator.request_sweep(),  # noqa: PLW0108 (it does not exist yet)
            )
            for name, followers in self._lanes.views(fleet.cross_tenant)
        ]
        self._reaction_worker = ReactionWorker(fleet, lease_seconds) if len(fleet.reactions) else None
        reacting = () if self._reaction_worker is None else (self._reaction_worker.activity,)
        self._usage = UsageRecorder(fleet.usage, self._assignments, self._may_work)
        self._coordinator = Coordinator(
            registry_cache=registry_cache,
            application_cache=fleet.application_cache,
            assignments=self._assignments,
            ready=self._lanes,
            leases=self._leases,
            quarantine=self._quarantine,
            sweep=sweep,
            sweeps_registry=is_same,
            activities=(activity, self._usage.activity, *reacting),
            views=self._views,
        )
        self._stopping = threading.Event()
        # Undone by stop(): the callbacks for wake-ups and registry changes.
        self._registrations = ExitStack()
        self._threads: list[threading.Thread] = []
        self._watching: list[threading.Thread] = []
        self._usage_thread = threading.Thread(
            target=self._usage.run, args=(self._stopping,), name="runner-usage", daemon=True
        )

    def __repr__(self) -> str:
        state = "stopped" if self._stopping.is_set() else "started" if self._threads else "not started"
        return f"Runner({self.owner}; {self.workers} workers; {state})"

    def _may_work(self) -> bool:
        return self._leases.are_valid() and not self._stopping.is_set()

    @property
    def owner(self) -> str:
        """The name of this process in leases and in :attr:`FollowerStatus.owner`."""
        return self._leases.owner

    # -- start and stop --

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the threads; return when this process has its share of the tenants.

        Raises EncodingMismatch, RegistryMissing or RegistryUnavailable. After the start, outages are retried.
        """
        if self._threads or self._stopping.is_set():
            msg = "This runner was already started."
            raise TenancyError(msg, remedy="Create a new one: tenants.runner()")
        try:
            self._registrations.callback(self._registry_cache.watch(self._coordinator.changed))
            table_listener = self._shard.datastore.shared.wakeups.listen_to_all(self._coordinator.on_commit)
            self._registrations.callback(table_listener.close)
            self._coordinator.use_listener(table_listener)
            self._fleet.cross_tenant.record()
            self._coordinator.start()
            for application, encoding in encodings_of(self._fleet.application_specs()).items():
                self._registry_cache.check_encoding(application, encoding)
            self._threads = [threading.Thread(target=self._coordinator.run, name="runner-coordinator", daemon=True)]
            if self._reaction_worker is not None:
                self._fleet.reactions.record()
                self._registrations.callback(self._registry_cache.watch(self._reaction_worker.changed))
                self._threads.append(
                    threading.Thread(
                        target=self._reaction_worker.run, args=(self._stopping,), name="runner-reactions", daemon=True
                    )
                )
            for number, worker in enumerate(self._workers):
                # The workers of another lane are those of a view's database.
                count, name = (self.workers, "worker") if not number else (max(1, self.workers // 2), f"view-{number}")
                self._threads += [
                    threading.Thread(
                        target=worker.run, args=(self._stopping,), name=f"runner-{name}-{each}", daemon=True
                    )
                    for each in range(1, count + 1)
                ]
            self._watching = [
                threading.Thread(target=each.run, args=(self._stopping,), name=f"runner-{each.name}", daemon=True)
                for each in self._views
            ]
            for thread in (*self._watching, *self._threads, self._usage_thread):
                thread.start()
        except BaseException:
            self._threads = [thread for thread in self._threads if thread.ident is not None]
            self._watching = [thread for thread in self._watching if thread.ident is not None]
            self.stop()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether the runner is started and all of its threads run. If one has ended by itself, restart the process."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def stop(self, timeout: float = _DRAIN) -> bool:
        """Finish the events being processed, and release the tenants to other processes.

        Return whether all finished within ``timeout`` seconds. Another process repeats an unfinished event, unless its
        transaction still commits.
        """
        self._stopping.set()
        self._registrations.close()
        self._lanes.close()
        self._coordinator.stop()
        for each in self._views:
            each.wake()
        if self._reaction_worker is not None:
            self._reaction_worker.stop()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for thread in self._watching:
            # They only read, and a database may not answer.
            thread.join(min(_WATCHING, max(0.0, deadline - time.monotonic())))
        if self._usage_thread.ident is not None:
            self._usage_thread.join(_DRAIN_USAGE)
        with suppress(TenancyError):  # the leases expire anyway
            self._leases.leave()
        return not any(thread.is_alive() for thread in self._threads)

    # -- inspection --

    def wait(self, slug: str, timeout: float = 10.0) -> None:
        """Wait until a tenant's followers have processed all events recorded so far.

        That includes the events that upstream followers record in response. Raises NotCaughtUp, a TimeoutError, after
        ``timeout`` seconds, or at once when a follower is quarantined or its tables are still to be created.
        """
        deadline = time.monotonic() + timeout
        tenant = find_tenant(self._registry_cache, slug)
        for pipe in self._pipes.all:
            wait = partial(self._wait_for, tenant, pipe, deadline)
            if self._lanes.is_main(pipe.follower):
                wait()
            elif not call_in_time(wait, max(0.0, deadline - time.monotonic()) + _ANSWER):
                msg = f"The database of the view of {pipe.follower!r} does not answer."
                raise NotCaughtUp(msg, remedy="See: tenancy runner status", tenant=tenant.slug)

    def _wait_for(self, tenant: Tenant, pipe: Pipe, deadline: float) -> None:
        self._raise_if_waiting(tenant, pipe)
        driver = open_follower(self._fleet, tenant, pipe)
        target = driver.last_id()
        self._wake_if_ours(tenant, pipe)
        pause = _POLL_FIRST
        while not self._has_passed(tenant, pipe, driver, target):
            self._raise_if_stuck(tenant, pipe, time.monotonic() > deadline)
            time.sleep(pause)
            pause = min(pause * 1.5, _POLL_MAX)

    def _raise_if_waiting(self, tenant: Tenant, pipe: Pipe) -> None:
        lacking = self._pipes.lacking(pipe, tenant.versions)
        if lacking:
            msg = f"Follower {pipe.follower!r} of tenant {tenant.slug!r} waits for its tables: {', '.join(lacking)}."
            raise NotCaughtUp(msg, remedy="Create them: tenancy migrate", tenant=tenant.slug)

    def _wake_if_ours(self, tenant: Tenant, pipe: Pipe) -> None:
        if self._assignments.holds(tenant.id):
            self._lanes.add((tenant.id, pipe.follower), (pipe.leader,))

    def _has_passed(self, tenant: Tenant, pipe: Pipe, driver: FollowerDriver, target: int) -> bool:
        assignment = self._assignments.get(tenant.id, pipe)
        if assignment is None:
            return driver.has_passed(target)
        # The remembered position alone does not suffice: the recorded one may have been set back.
        if assignment.recorded >= target and driver.position() >= target:
            return True
        if (assignment.position or 0) >= target:
            assignment.is_comparison_due = True
            self._wake_if_ours(tenant, pipe)
        return False

    def _raise_if_stuck(self, tenant: Tenant, pipe: Pipe, is_late: bool) -> None:
        failure = self._failure(tenant, pipe)
        if failure is not None and failure.is_quarantined:
            msg = (
                f"Follower {pipe.follower!r} of tenant {tenant.slug!r} is quarantined {failure.where} of "
                f"{failure.leader!r} ({failure.error})."
            )
            remedy = f"Fix the cause, then run: tenancy runner retry {tenant.slug} {pipe.follower}"
            raise NotCaughtUp(msg, remedy=remedy, tenant=tenant.slug)
        if is_late:
            why = "" if failure is None else f" It fails and is being retried ({failure.error})."
            msg = f"Follower {pipe.follower!r} of tenant {tenant.slug!r} has not caught up with {pipe.leader!r}.{why}"
            raise NotCaughtUp(msg, remedy="See: tenancy runner status", tenant=tenant.slug)

    def _failure(self, tenant: Tenant, pipe: Pipe) -> Failure | None:
        key = (tenant.id, pipe.follower)
        if self._assignments.holds(tenant.id):
            known = self._quarantine.get(key)
            if known is None or not known.is_quarantined:
                return known
        # Another process may run it, or its failure may just have been deleted from the store.
        return self._failure_store.get(key)

    def status(self) -> Sequence[FollowerStatus]:
        """Return the status of all tenants' followers, ordered by tenant slug.

        Followers that run in other processes have no rate here.
        """
        monitor = FollowerMonitor(
            self._fleet.registry, self._shard, self._fleet.application_specs(), self._fleet.cross_tenant
        )
        return monitor.status(assignment_of=self._assignments.get)

    def lags(self) -> Sequence[FollowerLag]:
        """Return how far the followers of this process are behind; from memory, without a query."""
        found = []
        for assignment in self._assignments.all():
            events, seconds = assignment.lag.behind(assignment.reached)
            pipe = assignment.pipe
            found.append(
                FollowerLag(
                    tenant_id=assignment.tenant.id,
                    leader=pipe.leader,
                    follower=pipe.follower,
                    events=events,
                    seconds=seconds,
                )
            )
        return found

    def counts(self) -> Mapping[str, int]:
        """Return the numbers of ``tenants`` of this process, and of its ``ready`` and ``quarantined`` followers."""
        tenants, ready = len(self._assignments.tenants), len(self._lanes)
        return {"tenants": tenants, "ready": ready, "quarantined": self._coordinator.quarantined()}

    def health(self) -> Mapping[str, str | None]:
        """Return this process's background activities, each with its current error class or None.

        It never queries a database and never blocks. Failing activities are retried with growing pauses.
        """
        return self._coordinator.health()
