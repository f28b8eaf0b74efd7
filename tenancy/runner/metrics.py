"""What prometheus-client is told, where it is installed. The tenant's id is a label of counters and gauges only."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from tenancy.runner.assignments import Assignment

__all__ = ["Metrics"]

# Each tenant that has a label costs memory here, and in whatever collects the metrics, for ever.
_MAX_TENANTS: Final = 1000
_OTHERS: Final = "other"


class Metrics:
    """Counts for one process. Safe to use from many threads; does nothing without prometheus-client."""

    def __init__(self, max_tenants: int = _MAX_TENANTS) -> None:
        self._collectors = _collectors()
        self._max_tenants = max_tenants
        # Guards the labels, for operations in memory only.
        self._lock = threading.Lock()
        self._labels: dict[UUID, str] = {}

    def _label(self, tenant_id: UUID) -> str:
        with self._lock:
            label = self._labels.get(tenant_id)
            if label is None:
                label = str(tenant_id) if len(self._labels) < self._max_tenants else _OTHERS
                if label is not _OTHERS:
                    self._labels[tenant_id] = label
            return label

    def processed(self, assignment: Assignment, count: int) -> None:
        """Count notifications that a follower has processed."""
        if self._collectors is not None:
            self._collectors["processed"].labels(self._label(assignment.tenant.id), assignment.pipe.follower).inc(count)

    def failed(self, assignment: Assignment) -> None:
        """Count an error of a follower."""
        if self._collectors is not None:
            self._collectors["failed"].labels(self._label(assignment.tenant.id), assignment.pipe.follower).inc()

    def state(self, *, tenants: int, ready: int, quarantined: int) -> None:
        """Show for how many tenants this process works, and how many followers wait for a turn or have stopped."""
        if self._collectors is not None:
            self._collectors["tenants"].set(tenants)
            self._collectors["ready"].set(ready)
            self._collectors["quarantined"].set(quarantined)

    def health(self, errors: Mapping[str, str | None]) -> None:
        """Show what this process does in the background, and whether it fails."""
        if self._collectors is not None:
            for name, error in errors.items():
                self._collectors["failing"].labels(name).set(error is not None)

    def forget(self, tenant_ids: Iterable[UUID]) -> None:
        """Remove tenants that this process does not work for any more."""
        for tenant_id in tenant_ids:
            with self._lock:
                label = self._labels.pop(tenant_id, None)
            if label is not None and self._collectors is not None:
                for name in ("processed", "failed"):
                    self._collectors[name].remove_by_labels({"tenant": label})


@lru_cache(maxsize=1)
def _collectors() -> dict[str, Any] | None:
    try:
        from prometheus_client import Counter, Gauge  # noqa: PLC0415 (an extra)
    except ImportError:
        return None
    labels = ("tenant", "follower")
    return {
        "processed": Counter("tenancy_runner_notifications", "Notifications that followers have processed", labels),
        "failed": Counter("tenancy_runner_failures", "Errors of followers", labels),
        "tenants": Gauge("tenancy_runner_tenants", "Tenants that this process works for"),
        "ready": Gauge("tenancy_runner_ready", "Followers that wait for a turn"),
        "failing": Gauge("tenancy_runner_failing", "1 where something in the background fails", ("activity",)),
        "quarantined": Gauge("tenancy_runner_quarantined", "Followers that are stopped at a notification"),
    }
