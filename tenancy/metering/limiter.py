"""The limiter of one application of one tenant: refuses events that would exceed the tenant's quotas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.dialects.protocols import Batch
    from eventsourcing_sqlalchemy.limiting import Reservation
    from tenancy.metering.ledger import Ledger
    from tenancy.model.quotas import Quotas
    from tenancy.model.tenant import Tenant

__all__ = ["Limiter", "exempt_from_quotas"]

_is_exempt: ContextVar[bool] = ContextVar("tenancy_exempt_from_quotas", default=False)


@contextmanager
def exempt_from_quotas() -> Iterator[None]:
    """Count the events of the block, and refuse none."""
    token = _is_exempt.set(True)
    try:
        yield
    finally:
        _is_exempt.reset(token)


class Limiter:
    """An :class:`AppendLimiter`. Needs no round trip, except for the first events of a tenant in a process."""

    def __init__(self, ledger: Ledger, tenant: Tenant, quotas: Quotas, application: str) -> None:
        self._ledger = ledger
        self._tenant = tenant
        self._quotas = quotas
        self._application = application
        self._account = ledger.account(tenant)

    def reserve(self, batch: Batch, *, follows: bool) -> Reservation | None:
        """Count a batch, or raise QuotaExceeded. The events of followers are counted, and not refused."""
        events = len(batch.events)
        if not events:
            return None
        if not self._account.is_known:
            self._ledger.know(self._tenant, self._account)
        self._ledger.touch(self._tenant)
        return self._account.reserve(
            self._tenant,
            self._quotas,
            self._application,
            events,
            batch.size,
            is_exempt=follows or _is_exempt.get(),
        )
