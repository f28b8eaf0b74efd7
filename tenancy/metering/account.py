"""What a tenant has recorded, as a process knows it: the events in its tables, and those that this process adds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from eventsourcing_sqlalchemy.locks import Lock
from tenancy.errors import QuotaExceeded

if TYPE_CHECKING:
    from tenancy.model.quotas import Quotas
    from tenancy.model.tenant import Tenant
    from tenancy.model.usage import Count

__all__ = ["Account", "Reservation"]

# Seconds at the allowed rate: how much may be recorded at once, and how long events of others can delay an append.
_BURST: Final = 1.0
_DEBT: Final = 10.0
# An allowance is a sum of many floats.
_ROUNDING: Final = 1e-6


class Reservation:
    """Events that this process is appending, or has appended since the last refresh."""

    __slots__ = ("_account", "application", "bytes", "events", "last_id", "refreshes")

    def __init__(self, account: Account, application: str, events: int, size: int) -> None:
        self._account = account
        self.application = application
        self.events = events
        self.bytes = size
        self.last_id: int | None = None
        """The id of the last event, once it is recorded."""
        self.refreshes = 0
        """The number of refreshes that had begun when it was recorded."""

    def settle(self, last_id: int) -> None:
        """Keep the events until a refresh counts them."""
        self._account.settle(self, last_id)

    def release(self) -> None:
        """Discard the events: they were not recorded, or only the next refresh will tell."""
        self._account.release(self)


class Account:
    """A tenant's account. Safe to use from many threads.

    The sum is that of the tables at the last refresh, and of the events that this process has added since: so a process
    alone never exceeds a quota, and several exceed it by no more than they record between two refreshes.
    """

    def __init__(self) -> None:
        # For operations in memory only.
        self._lock = Lock()
        self.is_known = False
        self._counts: Mapping[str, Count] = {}
        self._events = self._bytes = 0
        self._own: dict[Reservation, None] = {}
        self._own_events = self._own_bytes = 0
        self._refreshes = 0
        # What may be recorded now at the allowed rate; negative after a batch that was larger.
        self._allowance: float | None = None
        self._rate: float | None = None
        self._allowance_at = 0.0

    def reserve(
        self, tenant: Tenant, quotas: Quotas, application: str, events: int, size: int, *, is_exempt: bool
    ) -> Reservation:
        """Add events before they are recorded; raises QuotaExceeded unless they are exempt."""
        reservation = Reservation(self, application, events, size)
        with self._lock:
            if not is_exempt:
                self._check(tenant, quotas, events, size)
            self._own[reservation] = None
            self._own_events += events
            self._own_bytes += size
            if quotas.events_per_second is None:
                self._allowance = self._rate = None
            else:
                self._allowance = self._refill(quotas.events_per_second) - events
        return reservation

    def _check(self, tenant: Tenant, quotas: Quotas, events: int, size: int) -> None:
        used_events, used_bytes = self._events + self._own_events, self._bytes + self._own_bytes
        if quotas.events is not None and used_events + events > quotas.events:
            raise QuotaExceeded.of_total(tenant.slug, "events", quotas.events, used_events, events)
        if quotas.bytes is not None and used_bytes + size > quotas.bytes:
            raise QuotaExceeded.of_total(tenant.slug, "bytes", quotas.bytes, used_bytes, size)
        rate = quotas.events_per_second
        if rate is not None:
            # A larger batch than a burst waits for a full one.
            lacking = min(float(events), max(rate * _BURST, 1.0)) - self._refill(rate)
            if lacking > _ROUNDING:
                raise QuotaExceeded.of_rate(tenant.slug, rate, lacking / rate)

    def _refill(self, rate: float, others: int = 0) -> float:
        """Add what the time since the last call allows, and subtract the events of others; return the allowance."""
        now, most = time.monotonic(), max(rate * _BURST, 1.0)
        allowance = most if self._allowance is None else self._allowance + (now - self._allowance_at) * rate
        if others > 0:
            allowance = max(allowance - others, min(allowance, -rate * _DEBT))
        self._allowance, self._allowance_at, self._rate = min(most, allowance), now, rate
        return self._allowance

    def settle(self, reservation: Reservation, last_id: int) -> None:
        """See :meth:`Reservation.settle`."""
        with self._lock:
            reservation.last_id = last_id
            reservation.refreshes = self._refreshes
            count = self._counts.get(reservation.application)
            if count is not None and last_id <= count.position:
                self._remove(reservation)  # a refresh was faster than this thread

    def release(self, reservation: Reservation) -> None:
        """See :meth:`Reservation.release`."""
        with self._lock:
            self._remove(reservation)
            if self._allowance is not None:
                self._allowance += reservation.events

    def _remove(self, reservation: Reservation) -> None:
        if reservation in self._own:
            del self._own[reservation]
            self._own_events -= reservation.events
            self._own_bytes -= reservation.bytes

    def begin_refresh(self) -> None:
        """Note that the tables are read from now on."""
        with self._lock:
            self._refreshes += 1

    def end_refresh(self, counts: Mapping[str, Count]) -> None:
        """Replace the sum with what the tables contain, by application.

        Events that this process had recorded before the refresh began are among them, or in a transaction that is open
        or was rolled back.
        """
        with self._lock:
            before = self._events + self._own_events
            self._counts = counts
            self._events = sum(each.events for each in counts.values())
            self._bytes = sum(each.bytes for each in counts.values())
            for each in list(self._own):
                count = counts.get(each.application)
                is_counted = count is not None and each.last_id is not None and each.last_id <= count.position
                if is_counted or (each.last_id is not None and each.refreshes < self._refreshes):
                    self._remove(each)
            others = self._events + self._own_events - before
            if self.is_known and self._rate is not None:
                self._refill(self._rate, others)
            self.is_known = True
