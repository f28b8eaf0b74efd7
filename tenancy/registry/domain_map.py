"""All verified domains in memory: a request with any host, even an unknown one, costs no query.

A thousand domains take about 0.4 MB. They are read from the registry on first use. After that, the
domains of a changed tenant are read again, by the next caller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

__all__ = ["DomainMap"]

_Read = Callable[[Sequence[UUID] | None], Iterable[tuple[str, UUID]]]


class DomainMap:
    """The ids of tenants by their verified hosts. Safe to use from many threads.

    ``read`` returns the hosts of some tenants, or of all.
    """

    def __init__(self, read: _Read) -> None:
        self._read = read
        # Guards the map; held for operations in memory only.
        self._lock = threading.Lock()
        # Held by the thread that queries the registry; others wait for its result.
        self._reading = threading.Lock()
        self._hosts: dict[str, UUID] = {}
        self._hosts_of: dict[UUID, list[str]] = {}
        self._is_loaded = False
        self._is_used = False
        # Tenants whose domains may have changed, with the number of the last change.
        self._stale: dict[UUID, int] = {}
        self._changes = 0

    def forget(self, tenant_ids: Iterable[UUID]) -> None:
        """Read the domains of these tenants again before they are used: the tenants have changed."""
        with self._lock:
            if self._is_used:  # otherwise everything is read on first use
                for tenant_id in tenant_ids:
                    self._changes += 1
                    self._stale[tenant_id] = self._changes

    def recall(self, host: str) -> tuple[bool, UUID | None]:
        """Return True and the id of a host's tenant, or None for an unknown host; (False, None) if it must be read.

        Never waits.
        """
        with self._lock:
            tenant_id = self._hosts.get(host)
            if tenant_id is not None and tenant_id not in self._stale:
                return True, tenant_id
            return self._is_loaded and not self._stale, None

    def find(self, host: str) -> UUID | None:
        """Return the id of a host's tenant, or None; queries the registry only after a change."""
        is_known, tenant_id = self.recall(host)
        if not is_known:
            self._update()
            with self._lock:
                tenant_id = self._hosts.get(host)
        return tenant_id

    def _update(self) -> None:
        with self._reading:
            with self._lock:
                self._is_used = True
                stale, is_loaded = dict(self._stale), self._is_loaded
                if is_loaded and not stale:
                    return  # another thread was faster
            found = list(self._read(list(stale) if is_loaded else None))
            with self._lock:
                if not is_loaded:
                    self._hosts, self._hosts_of, self._is_loaded = {}, {}, True
                for tenant_id in stale:
                    for host in self._hosts_of.pop(tenant_id, ()):
                        self._hosts.pop(host, None)
                for host, tenant_id in found:
                    former = self._hosts.get(host)
                    if former is not None and former != tenant_id:
                        self._hosts_of[former].remove(host)
                    self._hosts[host] = tenant_id
                    self._hosts_of.setdefault(tenant_id, []).append(host)
                # A tenant that has changed in the meantime is read once more.
                self._stale = {each: number for each, number in self._stale.items() if number != stale.get(each)}
