"""Observe the recorders of tenants' applications, for the counters and the tracer of this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from eventsourcing.persistence import IntegrityError

from tenancy.errors import QuotaExceeded
from tenancy.instruments import count_refusal, instruments
from tenancy.persistence import TenantDatastore

__all__ = ["observe_recorders"]

_T = TypeVar("_T")


class _RecorderObserver:
    """Passes on what recorders do to the instruments in use."""

    def append(self, datastore: TenantDatastore, kind: str, table: object, count: int, call: Callable[[], _T]) -> _T:
        counters, tracer = instruments.counters, instruments.tracer
        try:
            result = call() if tracer is None else tracer.call("append", datastore, table, call, count)
        except IntegrityError:
            if counters is not None and kind == "events":
                counters.conflicted(datastore.tenant_id, datastore.application)
            raise
        except QuotaExceeded as error:
            count_refusal(error.code, "call")
            raise
        if counters is not None and kind == "events" and count:
            counters.appended(datastore.tenant_id, datastore.application, count)
        return result

    def read(self, datastore: TenantDatastore, kind: str, table: object, call: Callable[[], _T]) -> _T:
        tracer = instruments.tracer
        return call() if tracer is None else tracer.call("read", datastore, table, call, 0)


def observe_recorders() -> None:
    """Observe the recorders of all tenants, of present applications and later ones, while an instrument is in use."""
    is_used = instruments.counters is not None or instruments.tracer is not None
    TenantDatastore.observer = _RecorderObserver() if is_used else None
