"""Metrics for prometheus-client, if installed. A tenant appears only by its id, as a label."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from tenancy.runner.assignments import Assignment

__all__ = ["Metrics"]

# Each labelled tenant costs memory here, and permanently in the collecting system.
_MAX_TENANTS: Final = 1000
_OTHERS: Final = "other"


class Metrics:
    """Metrics of one process; without prometheus-client, a no-op. Safe to use from many threads."""

    def __init__(self, max_tenants: int = _MAX_TENANTS) -> None:
        self._collectors = _collectors()
        self._max_tenants = max_tenants
        # Guards the labels, for in-memory operations only.
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
        """Count notifications processed by a follower."""
        if self._collectors is not None:
            self._collectors["processed"].labels(self._label(assignment.tenant.id), assignment.pipe.follower).inc(count)

    def failed(self, assignment: Assignment) -> None:
        """Count a follower's error."""
        if self._collectors is not None:
            self._collectors["failed"].labels(self._label(assignment.tenant.id), assignment.pipe.follower).inc()

    def state(self, *, tenants: int, ready: int, quarantined: int) -> None:
        """Set the numbers of assigned tenants, ready followers and quarantined followers."""
        if self._collectors is not None:
            self._collectors["tenants"].set(tenants)
            self._collectors["ready"].set(ready)
            self._collectors["quarantined"].set(quarantined)

    def health(self, errors: Mapping[str, str | None]) -> None:
        """Set for each background activity whether it is failing."""
        if self._collectors is not None:
            for name, error in errors.items():
                self._collectors["failing"].labels(name).set(error is not None)

    def forget(self, tenant_ids: Iterable[UUID]) -> None:
        """Remove the labels of tenants that are no longer assigned to this process."""
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
        "processed": Counter("tenancy_runner_notifications", "Notifications processed by followers", labels),
        "failed": Counter("tenancy_runner_failures", "Follower errors", labels),
        "tenants": Gauge("tenancy_runner_tenants", "Tenants assigned to this process"),
        "ready": Gauge("tenancy_runner_ready", "Followers waiting for a worker"),
        "failing": Gauge("tenancy_runner_failing", "1 while the background activity is failing", ("activity",)),
        "quarantined": Gauge("tenancy_runner_quarantined", "Followers quarantined at a notification"),
    }
