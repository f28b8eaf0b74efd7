"""Execute the items of a job, one after the other, until none is left or the executor is stopped."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from uuid import UUID

from eventsourcing.utils import resolve_topic

from eventsourcing_sqlalchemy.background import pause
from eventsourcing_sqlalchemy.errors import code_of, describe, frames_of
from tenancy.arguments import check_class
from tenancy.errors import JobNotFound, RegistryUnavailable, TenancyError
from tenancy.instruments import instruments
from tenancy.model.tenant import TenantStatus
from tenancy.operations.jobs.claims import Claim, Claims, ItemEnd, ItemLost
from tenancy.operations.jobs.job import ItemStatus, JobPhase, JobStatus
from tenancy.operations.jobs.kind import ItemSkipped, JobItem, JobKind
from tenancy.operations.jobs.renewal import Renewal
from tenancy.operations.jobs.store import JobStore

if TYPE_CHECKING:
    from tenancy.fleet import Fleet

__all__ = ["Executor"]

logger: Final = logging.getLogger(__name__)

_T = TypeVar("_T")

# Seconds between two looks for an item, while all that are left run elsewhere.
_FIRST_POLL: Final = 0.05
_LONGEST_POLL: Final = 1.0
# Seconds for which an unreachable registry is tolerated, and the pause between two attempts.
_PATIENCE: Final = 60.0
_PAUSE: Final = 0.5


class _ItemStopped(BaseException):
    """Ends an attempt. No Exception: an operation that handles its own errors must not handle this one."""


class Executor:
    """Executes the items of a job in the calling thread. Call :meth:`run` once; :meth:`stop` is thread-safe.

    Raises JobNotFound, and TopicError when the class of the job's kind cannot be imported.
    """

    def __init__(self, fleet: Fleet, job_id: UUID, check: Callable[[], bool] | None = None) -> None:
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._store = JobStore(fleet.registry)
        self._job = job = self._store.get(job_id)
        cls = resolve_topic(job.topic)
        check_class("The kind of the job", cls, JobKind, "a class of JobKind")
        self._kind = cast("type[JobKind]", cls)(fleet, job.parameters)
        self._check = check
        self._claims = Claims(fleet.registry, job, self.owner, self._kind.max_running)
        self._renewal = Renewal(self._claims, job.lease_seconds)
        self._stopping = threading.Event()
        # When a running item has to end, by the monotonic clock; None while there is no limit.
        self._deadline: float | None = None

    def stop(self, drain_seconds: float) -> None:
        """Claim nothing more. The running item may finish for some seconds; then its next check ends it."""
        self._deadline = time.monotonic() + drain_seconds
        self._stopping.set()

    def run(self) -> None:
        """Execute items until the job has no more, is halted or cancelled, or :meth:`stop` was called.

        It waits for items that other executors run, to take them over if one dies. Raises RegistryUnavailable when the
        registry does not answer for a minute.
        """
        poll = _FIRST_POLL
        with self._renewal:
            while not self._stopping.is_set():
                claim = _patiently(self._claims.claim)
                if claim is not None:
                    self._execute(claim)
                    poll = _FIRST_POLL
                elif not _patiently(self._goes_on):
                    return
                else:
                    self._stopping.wait(poll)
                    poll = min(2 * poll, _LONGEST_POLL)

    def _goes_on(self) -> bool:
        try:
            return self._go_on()
        except JobNotFound:  # ended elsewhere, and removed
            return False

    def _go_on(self) -> bool:
        """Start the next phase when the current one is over; return whether the job is still running."""
        job_id = self._job.id
        self._store.advance(job_id, has_finish=self._kind.has_finish)
        status, phase = self._store.state(job_id)
        if status is JobStatus.RUNNING and phase is JobPhase.FINISH:
            self._finish()
            return False
        if status is JobStatus.RUNNING and phase is JobPhase.CHECK and self._check is not None:
            if self._check():
                self._store.pass_check(job_id)
            else:
                self._store.halt(job_id, "The check after the canaries has failed.")
        return status is JobStatus.RUNNING

    def _finish(self) -> None:
        """Do the last step of the operation, and end the job."""
        job_id = self._job.id
        try:
            self._kind.finish(self._check_job)
        except _ItemStopped:
            return
        except RegistryUnavailable:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 (any error halts the job)
            # A reason stays in the registry: no message that may name a tenant, or contain values.
            is_ours = isinstance(error, TenancyError) and error.tenant is None
            what = error.message if is_ours and isinstance(error, TenancyError) else f"{describe(error)}."
            logger.warning("The last step of the job has failed: %s", describe(error), extra={"job_id": job_id})
            self._store.halt(job_id, f"The last step has failed: {what}")
        else:
            _patiently(lambda: self._store.complete(job_id))

    def _check_job(self) -> None:
        is_overdue = self._deadline is not None and time.monotonic() >= self._deadline
        if is_overdue or self._store.state(self._job.id)[0] is not JobStatus.RUNNING:
            raise _ItemStopped

    def _execute(self, claim: Claim) -> None:
        self._renewal.hold(claim)
        try:
            end = self._attempt(claim)
            _patiently(lambda: self._claims.end(claim, end))
        except ItemLost:
            extra = {"event": "item.taken_over", "tenant_id": str(claim.tenant_id)}
            logger.warning("Another executor has taken over the item.", extra=extra)
        except BaseException as error:  # an interrupt, or an unreachable registry
            with suppress(ItemLost, RegistryUnavailable):  # the lease expires anyway
                self._claims.release(claim)
            if not isinstance(error, _ItemStopped):
                raise
        finally:
            self._renewal.drop()

    def _attempt(self, claim: Claim) -> ItemEnd:
        tenant = claim.tenant
        if tenant is None or tenant.status is TenantStatus.PURGING:
            return ItemEnd(status=ItemStatus.SKIPPED, summary="purged")
        item = _RunningItem(claim, self._claims, self._check_item)
        try:
            kind, tracer = self._kind, instruments.tracer
            summary = (kind.run if tracer is None else tracer.item(kind.run, self._job))(tenant, item)
        except ItemSkipped as reason:
            return ItemEnd(status=ItemStatus.SKIPPED, summary=str(reason))
        except (Exception, SystemExit) as error:  # noqa: BLE001 (any error is the failure of the item)
            name, _, _ = describe(error).partition(" ")
            return ItemEnd(status=ItemStatus.FAILED, error=name, sqlstate=code_of(error), frames=frames_of(error))
        return ItemEnd(status=ItemStatus.DONE, summary=summary)

    def _check_item(self) -> None:
        is_overdue = self._deadline is not None and time.monotonic() >= self._deadline
        if is_overdue or self._renewal.is_cancelled or not self._renewal.is_valid:
            raise _ItemStopped


class _RunningItem(JobItem):
    """The running item, for the operation."""

    def __init__(self, claim: Claim, claims: Claims, check: Callable[[], None]) -> None:
        self._tenant_id = claim.tenant_id
        self._progress = claim.progress
        self._claims = claims
        self._check = check

    @property
    def progress(self) -> Mapping[str, Any]:
        return self._progress

    def save_progress(self, progress: Mapping[str, Any]) -> None:
        self.check()
        try:
            _patiently(lambda: self._claims.save_progress(self._tenant_id, progress))
        except ItemLost:
            raise _ItemStopped from None
        self._progress = dict(progress)

    def check(self) -> None:
        self._check()


def _patiently(call: Callable[[], _T]) -> _T:
    """Call a function again while the registry is unreachable, for a minute."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return call()
        except RegistryUnavailable:
            if time.monotonic() > deadline:
                raise
        pause(_PAUSE)
