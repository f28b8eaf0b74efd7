"""Metrics of a service or a runner, for Prometheus. They contain no name of a tenant: a tenant appears by its id."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from eventsourcing.persistence import PersistenceError
from prometheus_client import REGISTRY, CollectorRegistry, Counter, values
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenancy.arguments import check_type
from tenancy.errors import InvalidArgument, TenancyError
from tenancy.instruments import instruments
from tenancy.telemetry.observer import observe_recorders
from tenancy.telemetry.tenant_labels import OTHER, TenantLabels
from tenancy.tenancy import Tenancy

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from tenancy.operations.jobs import Job
    from tenancy.runner import Runner
    from tenancy.runner.lags import FollowerLag

__all__ = ["Measurement", "measure"]

# Name -> help and labels. prometheus-client appends "_total".
_COUNTERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "tenancy_events_appended": ("Events appended by applications", ("tenant", "application")),
    "tenancy_conflicts": ("Appends that another writer preceded", ("tenant", "application")),
    "tenancy_refusals": ("Requests and calls that were refused, by error code", ("reason", "at")),
    "tenancy_runner_notifications": ("Notifications processed by followers", ("tenant", "follower")),
    "tenancy_runner_failures": ("Follower errors", ("tenant", "follower")),
}
_BY_TENANT: Final = tuple(name for name, (_, labels) in _COUNTERS.items() if "tenant" in labels)

# Seconds for which the jobs that were read are reported again.
_JOBS: Final = 15.0


def measure(
    tenants: Tenancy,
    *,
    runner: Runner | None = None,
    registry: CollectorRegistry = REGISTRY,
    max_tenants: int = 100,
) -> Measurement:
    """Count what this process does, and register the metrics in a registry of prometheus-client.

    Pass the ``runner`` of this process, if it has one, for its followers and for the progress of jobs. At most
    ``max_tenants`` tenants have metrics of their own, and all others share the label ``other``. The measurement ends
    with :meth:`Measurement.close`.

    Raises InvalidArgument when this process measures a fleet already.
    """
    check_type("tenants", tenants, Tenancy, "the Tenancy of the fleet")
    check_type("max_tenants", max_tenants, int, "a number")
    if max_tenants < 0:
        msg = f"max_tenants is {max_tenants}."
        raise InvalidArgument(msg, remedy="Pass 0 to label no tenant.")
    if instruments.counters is not None:
        msg = "This process measures a fleet already."
        raise InvalidArgument(msg, remedy="Measure once in each process, or close() the other measurement first.")
    return Measurement(tenants, runner, registry, max_tenants)


class _PrometheusCounters:
    """Counts in prometheus-client. Safe to use from many threads, and in its multi-process mode."""

    def __init__(self, registry: CollectorRegistry, max_tenants: int) -> None:
        self.collectors = {
            name: Counter(name, text, labels, registry=registry) for name, (text, labels) in _COUNTERS.items()
        }
        self._labels = TenantLabels(max_tenants, self._drop)
        # The part of a counter with certain labels: finding it takes longer than counting.
        self._series: dict[tuple[str, str, str], Counter] = {}

    def refused(self, code: str, at: str) -> None:
        self._add("tenancy_refusals", code, at, 1)

    def appended(self, tenant_id: UUID, application: str, count: int) -> None:
        self._add("tenancy_events_appended", self._labels.count(tenant_id, count), application, count)

    def conflicted(self, tenant_id: UUID, application: str) -> None:
        self._add("tenancy_conflicts", self._labels.count(tenant_id, 1), application, 1)

    def processed(self, tenant_id: UUID, follower: str, count: int) -> None:
        self._add("tenancy_runner_notifications", self._labels.count(tenant_id, count), follower, count)

    def failed(self, tenant_id: UUID, follower: str) -> None:
        self._add("tenancy_runner_failures", self._labels.count(tenant_id, 1), follower, 1)

    def forget(self, tenant_ids: Collection[UUID]) -> None:
        self._labels.forget(tenant_ids)

    def _add(self, name: str, first: str, second: str, amount: int) -> None:
        key = (name, first, second)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self.collectors[name].labels(first, second)
        series.inc(amount)

    def _drop(self, label: str) -> None:
        for key in [key for key in list(self._series) if key[0] in _BY_TENANT and key[1] == label]:
            self._series.pop(key, None)
        if values.ValueClass is values.MutexValue:  # in the multi-process mode, series cannot be removed
            for name in _BY_TENANT:
                self.collectors[name].remove_by_labels({"tenant": label})


class Measurement(Collector):
    """The metrics of a fleet in this process; see :func:`measure`. What is not counted is read at each scrape."""

    def __init__(self, tenants: Tenancy, runner: Runner | None, registry: CollectorRegistry, max_tenants: int) -> None:
        self._tenants = tenants
        self._runner = runner
        self._registry = registry
        self._max_tenants = max_tenants
        self._jobs: Sequence[Job] = ()
        self._jobs_due = -float("inf")
        self._counters = _PrometheusCounters(registry, max_tenants)
        registry.register(self)
        instruments.counters = self._counters
        observe_recorders()

    def close(self) -> None:
        """Count no more, and remove the metrics from the registry; idempotent."""
        if instruments.counters is self._counters:
            instruments.counters = None
            observe_recorders()
            for collector in (self, *self._counters.collectors.values()):
                self._registry.unregister(collector)

    def describe(self) -> Iterator[Metric]:
        """Return nothing: the registry need not read the metrics to register them."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that are read at a scrape. Only the progress of jobs needs a query."""
        if self._tenants.is_closed:
            return
        yield from self._pools()
        yield from self._caches()
        if self._runner is not None:
            yield from self._of_runner(self._runner)
            yield from self._lags(self._runner.lags())
            yield self._of_jobs()

    def _pools(self) -> Iterator[Metric]:
        connections = GaugeMetricFamily(
            "tenancy_pool_connections", "Connections by state: in_use or idle", labels=("database", "state")
        )
        limit = GaugeMetricFamily("tenancy_pool_limit", "The most connections of the pool", labels=("database",))
        waits, seconds, timeouts = (
            CounterMetricFamily(name, text, labels=("database",))
            for name, text in (
                ("tenancy_pool_waits", "Waits of threads for a connection"),
                ("tenancy_pool_wait_seconds", "Seconds that threads have waited for a connection"),
                ("tenancy_pool_timeouts", "Waits that ended without a connection"),
            )
        )
        fleet = self._tenants.fleet
        for database, datastore in (("tenants", fleet.shard.datastore), ("registry", fleet.registry.datastore)):
            status = _pool_of(datastore)
            if status is not None:
                connections.add_metric((database, "in_use"), status.in_use)
                connections.add_metric((database, "idle"), status.idle)
                limit.add_metric((database,), status.limit)
                waits.add_metric((database,), status.waits)
                seconds.add_metric((database,), status.wait_seconds)
                timeouts.add_metric((database,), status.timeouts)
        yield from (connections, limit, waits, seconds, timeouts)

    def _caches(self) -> Iterator[Metric]:
        fleet = self._tenants.fleet
        lookups = CounterMetricFamily(
            "tenancy_cache_lookups", "Lookups in a cache by result: hit or miss", labels=("cache", "result")
        )
        for name, cache in (("tenants", fleet.registry_cache), ("applications", fleet.application_cache)):
            lookups.add_metric((name, "hit"), cache.hits)
            lookups.add_metric((name, "miss"), cache.misses)
        yield lookups
        yield _gauge("tenancy_applications_cached", "Applications in the cache", len(fleet.application_cache))
        age = fleet.registry_cache.age
        if age != float("inf"):
            yield _gauge("tenancy_registry_age_seconds", "Seconds since the registry has answered", age)

    def _of_runner(self, runner: Runner) -> Iterator[Metric]:
        counts = runner.counts()
        yield _gauge("tenancy_runner_tenants", "Tenants assigned to this process", counts["tenants"])
        yield _gauge("tenancy_runner_ready", "Followers waiting for a worker", counts["ready"])
        yield _gauge("tenancy_runner_quarantined", "Followers quarantined at a notification", counts["quarantined"])
        failing = GaugeMetricFamily(
            "tenancy_runner_failing", "1 while the background activity is failing", labels=("activity",)
        )
        for name, error in runner.health().items():
            failing.add_metric((name,), error is not None)
        yield failing

    def _lags(self, lags: Sequence[FollowerLag]) -> Iterator[Metric]:
        """Yield the lags of the tenants that are farthest behind; of the others, the sum and the maximum."""
        labels = ("tenant", "follower", "leader")
        events = GaugeMetricFamily("tenancy_follower_lag_events", "Events that followers are behind", labels=labels)
        seconds = GaugeMetricFamily("tenancy_follower_lag_seconds", "Seconds that followers are behind", labels=labels)
        by_pipe: dict[tuple[str, str], list[FollowerLag]] = {}
        for lag in lags:
            by_pipe.setdefault((lag.follower, lag.leader), []).append(lag)
        for pipe, found in by_pipe.items():
            found.sort(key=lambda lag: lag.seconds, reverse=True)
            own = [lag for lag in found[: self._max_tenants] if lag.events]
            others = found[len(own) :]
            for lag in own:
                events.add_metric((str(lag.tenant_id), *pipe), lag.events)
                seconds.add_metric((str(lag.tenant_id), *pipe), lag.seconds)
            events.add_metric((OTHER, *pipe), sum(lag.events for lag in others))
            seconds.add_metric((OTHER, *pipe), max((lag.seconds for lag in others), default=0.0))
        yield from (events, seconds)

    def _of_jobs(self) -> Metric:
        items = GaugeMetricFamily(
            "tenancy_job_items", "Tenants of unfinished jobs by status", labels=("job_id", "kind", "status")
        )
        for job in self._unfinished_jobs():
            counts = job.counts
            for status in ("pending", "running", "done", "failed", "skipped"):
                items.add_metric((str(job.id), job.kind, status), getattr(counts, status))
        return items

    def _unfinished_jobs(self) -> Sequence[Job]:
        now = time.monotonic()
        if now >= self._jobs_due:
            self._jobs_due = now + _JOBS
            try:
                self._jobs = self._tenants.jobs.unfinished()
            except (TenancyError, PersistenceError):  # the age of the registry shows it
                self._jobs = ()
        return self._jobs


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _pool_of(datastore: SQLAlchemyDatastore) -> Any:
    try:
        return datastore.shared.pool.status()
    except PersistenceError:  # closed meanwhile
        return None
