"""The instruments of this process: what counts and traces its work. Without them, code only looks for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from tenancy.model.tenant import Tenant

__all__ = ["Counters", "Instruments", "Tracer", "count_refusal", "instruments"]

_T = TypeVar("_T")


class Counters(Protocol):
    """Counts what happens. Safe to use from many threads."""

    def refused(self, code: str, at: str) -> None:
        """Count a refusal: the code of the error, at a ``request`` or at a ``call`` of an application."""

    def appended(self, tenant_id: UUID, application: str, count: int) -> None:
        """Count events that an application has appended."""

    def conflicted(self, tenant_id: UUID, application: str) -> None:
        """Count an append that another writer preceded."""

    def processed(self, tenant_id: UUID, follower: str, count: int) -> None:
        """Count notifications that a follower has processed."""

    def failed(self, tenant_id: UUID, follower: str) -> None:
        """Count an error of a follower."""

    def forget(self, tenant_ids: Collection[UUID]) -> None:
        """Remove tenants whose followers this process no longer runs."""


class Tracer(Protocol):
    """Runs calls in spans. Safe to use from many threads."""

    def call(self, operation: str, datastore: Any, table: object, call: Callable[[], _T], count: int) -> _T:
        """Run a call of a recorder; ``operation`` is ``append``, of ``count`` events, or ``read``."""

    def request(
        self,
        scope: AbstractContextManager[None],
        tenant: Tenant | None,
        method: str,
        headers: Sequence[tuple[str, str]],
        status: Callable[[], int | None],
    ) -> AbstractContextManager[None]:
        """Return the scope of a request, extended by a span; ``status`` returns the status of the response."""

    def turn(self, run: Callable[[tuple[UUID, str], Any], _T]) -> Callable[[tuple[UUID, str], Any], _T]:
        """Return a function that runs a turn of a follower, given its key and its leaders."""

    def processing(
        self, process: Callable[[Any, Any], None], leader: Any, notification_id: int
    ) -> Callable[[Any, Any], None]:
        """Return a function that processes an event of a leader with its tracking object."""

    def item(self, run: Callable[[Tenant, Any], str], job: Any) -> Callable[[Tenant, Any], str]:
        """Return a function that runs a job for one tenant."""


class Instruments:
    """The instruments in use; None where a process has none."""

    counters: Counters | None = None
    tracer: Tracer | None = None


instruments: Final = Instruments()


def count_refusal(code: str, at: str) -> None:
    """Count a refusal, where refusals are counted: see :meth:`Counters.refused`."""
    if instruments.counters is not None:
        instruments.counters.refused(code, at)
