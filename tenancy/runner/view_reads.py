"""Call the databases of views over all tenants within a time limit: they may not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final
from uuid import UUID
from weakref import WeakKeyDictionary

from eventsourcing.persistence import InterfaceError, OperationalError

from eventsourcing_sqlalchemy.locks import Lock
from tenancy.following.pipes import Pipe
from tenancy.storage.cross_tenant import CrossTenantProjection

if TYPE_CHECKING:
    from tenancy.storage.cross_tenant_projections import CrossTenantProjections

__all__ = ["READ_SECONDS", "call_in_time", "read_in_time"]

READ_SECONDS: Final = 5.0
"""How long :func:`read_in_time` waits."""

# The reads that have not returned. While a database does not answer, there is one for each projection, not one a call.
_reading: WeakKeyDictionary[CrossTenantProjection, threading.Thread] = WeakKeyDictionary()
_lock: Final = Lock()


def read_in_time(
    projections: CrossTenantProjections, wanted: Mapping[Pipe, Iterable[UUID]]
) -> dict[Pipe, dict[UUID, int]]:
    """Return the recorded positions of these tenants behind each pipe; without pipes whose view is unreachable.

    Creates no tables: a tenant without a position is absent.
    """
    deadline = time.monotonic() + READ_SECONDS
    reads = [_Read(projections[pipe.follower], pipe, list(ids)) for pipe, ids in wanted.items()]
    by_projection: dict[CrossTenantProjection, list[_Read]] = {}
    for each in reads:
        by_projection.setdefault(each.projection, []).append(each)
    threads = [_start(projection, of_it) for projection, of_it in by_projection.items()]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for each in reads:
        if each.error is not None:
            raise each.error
    return {each.pipe: each.found for each in reads if each.found is not None}


def call_in_time(call: Callable[[], object], seconds: float) -> bool:
    """Call a function in a thread; return whether it has returned within some seconds. Raises its error."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits)
            errors.append(error)

    thread = threading.Thread(target=run, name="view-call", daemon=True)
    thread.start()
    thread.join(seconds)
    for error in errors:
        raise error
    return not thread.is_alive()


class _Read:
    def __init__(self, projection: CrossTenantProjection, pipe: Pipe, ids: list[UUID]) -> None:
        self.projection = projection
        self.pipe = pipe
        self.found: dict[UUID, int] | None = None
        self.error: BaseException | None = None
        self._ids = ids

    def run(self) -> None:
        try:
            self.found = self.projection.positions(self.pipe.leader, self._ids)
        except (OperationalError, InterfaceError):
            return
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits)
            self.error = error


def _start(projection: CrossTenantProjection, reads: list[_Read]) -> threading.Thread:
    """Return the thread that reads a view, or the one that has waited for an answer since an earlier call."""

    def run() -> None:
        for each in reads:
            each.run()

    with _lock:
        known = _reading.get(projection)
        if known is not None and known.is_alive():
            return known
        thread = _reading[projection] = threading.Thread(target=run, name="view-positions", daemon=True)
        thread.start()
        return thread
