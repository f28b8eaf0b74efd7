"""Labels of tenants, bounded in number: the most active ones by id, all others together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Final
from uuid import UUID

__all__ = ["OTHER", "TenantLabels"]

OTHER: Final = "other"
"""The label that all tenants without one of their own share."""

# Seconds of activity that are compared, and how much more active a tenant must be to take the label of another one:
# each change starts a series in the collecting system.
_INTERVAL: Final = 60.0
_FACTOR: Final = 2


class TenantLabels:
    """The labels of at most ``limit`` tenants. Safe to use from many threads.

    A counter must never decrease. So a tenant that gets a label counts from zero under it, and what it counted before
    stays in :data:`OTHER`. ``dropped`` is called with a label that is no longer used.
    """

    def __init__(self, limit: int, dropped: Callable[[str], None]) -> None:
        self._limit = limit
        self._dropped = dropped
        # Guards the fields below, for in-memory operations only.
        self._lock = threading.Lock()
        self._labels: dict[UUID, str] = {}
        self._activity: dict[UUID, int] = {}
        self._due = time.monotonic() + _INTERVAL

    def count(self, tenant_id: UUID, amount: int) -> str:
        """Return the label of a tenant, and remember how active it is."""
        dropped: list[str] = []
        with self._lock:
            self._activity[tenant_id] = self._activity.get(tenant_id, 0) + amount
            label = self._labels.get(tenant_id)
            if label is None:
                if len(self._labels) < self._limit:
                    self._labels[tenant_id] = str(tenant_id)
                elif time.monotonic() >= self._due:
                    dropped = self._compare()
                label = self._labels.get(tenant_id, OTHER)
        for each in dropped:
            self._dropped(each)
        return label

    def _compare(self) -> list[str]:
        """Give the labels of the least active tenants to more active ones; return the labels that are dropped."""
        activity, self._activity = self._activity, {}
        self._due = time.monotonic() + _INTERVAL
        others = sorted(activity.keys() - self._labels.keys(), key=lambda each: activity[each], reverse=True)
        labelled = sorted(self._labels, key=lambda each: activity.get(each, 0))
        dropped = []
        for more_active, least_active in zip(others, labelled, strict=False):
            if activity[more_active] <= _FACTOR * activity.get(least_active, 0):
                break
            dropped.append(self._labels.pop(least_active))
            self._labels[more_active] = str(more_active)
        return dropped

    def forget(self, tenant_ids: Collection[UUID]) -> None:
        """Drop the labels of tenants."""
        with self._lock:
            for tenant_id in tenant_ids:
                self._activity.pop(tenant_id, None)
            dropped = [label for each in tenant_ids if (label := self._labels.pop(each, None)) is not None]
        for label in dropped:
            self._dropped(label)
