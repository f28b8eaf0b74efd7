"""The quarantine: delay failing followers, quarantine poison events, and resume followers on request."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy.error_fields import error_fields
from eventsourcing_sqlalchemy.errors import describe
from tenancy.errors import TenancyError
from tenancy.runner.failures import Failure, FailureStore, failure_of, retry_delay

if TYPE_CHECKING:
    from tenancy.runner.assignments import Assignment, Assignments
    from tenancy.runner.lanes import Lanes
    from tenancy.runner.ready_queue import Key, ReadyQueue

__all__ = ["Quarantine"]

logger = logging.getLogger(__name__)


class Quarantine:
    """Failures of the followers assigned to this process. Safe to use from many threads.

    The failure store is authoritative: when a failure is deleted there, this process retries the follower.
    """

    def __init__(
        self, failure_store: FailureStore, assignments: Assignments, ready: Lanes | ReadyQueue, max_attempts: int
    ) -> None:
        self._failure_store = failure_store
        self._assignments = assignments
        self._ready = ready
        self._max_attempts = max_attempts
        # Guards the fields below, for in-memory operations only.
        self._lock = threading.Lock()
        self._known: dict[Key, Failure] = {}
        # Keys whose failure is known here and not stored yet.
        self._unwritten: set[Key] = set()

    def get(self, key: Key) -> Failure | None:
        """Return a follower's current failure, or None."""
        return self._known.get(key)

    def record_failure(
        self, error: BaseException, assignment: Assignment, notification_id: int | None, leaders: Iterable[str]
    ) -> None:
        """Delay a follower after an error, or quarantine it after too many attempts."""
        key = assignment.key
        before = self._known.get(key) or self._stored(key)
        failure = failure_of(
            error, key, assignment.pipe.leader, notification_id, before, max_attempts=self._max_attempts
        )
        delay = math.inf if failure.is_quarantined else retry_delay(failure.attempts)
        # Under one lock: a blocked follower without a known failure would stay blocked permanently.
        with self._lock:
            self._known[key] = failure
            self._unwritten.add(key)
            self._ready.block(key, leaders, delay)
        logger.log(
            logging.ERROR if failure.is_quarantined else logging.WARNING,
            "Follower %s failed %s, %s: %s",
            failure.follower,
            failure.where,
            "quarantined" if failure.is_quarantined else f"retrying in {delay:g} s",
            failure.error,
            extra={
                "event": "follower.quarantined" if failure.is_quarantined else "follower.failed",
                **error_fields(error),
                "tenant_id": str(failure.tenant_id),
                "follower": failure.follower,
                "leader": failure.leader,
                "notification_id": failure.notification_id,
                "attempts": failure.attempts,
            },
        )
        self._write(failure)

    def _stored(self, key: Key) -> Failure | None:
        # A follower may run here before this process learns that it was quarantined in another process.
        try:
            return self._failure_store.get(key)
        except (TenancyError, PersistenceError):
            return None

    def _write(self, *failures: Failure) -> None:
        for failure in failures:
            try:
                is_written = self._failure_store.record(failure)
            except (TenancyError, PersistenceError) as error:
                extra = {"event": "failure.not_stored", **error_fields(error), "tenant_id": str(failure.tenant_id)}
                logger.warning("A failure could not be stored, retrying in a second: %s", describe(error), extra=extra)
                return
            with self._lock:
                if is_written and self._known.get(failure.key) is failure:
                    self._unwritten.discard(failure.key)

    def clear(self, key: Key, leader: str) -> None:
        """Clear a follower's failure after it has made progress behind a leader."""
        failure = self._known.get(key)
        if failure is None or failure.leader != leader:
            return
        with self._lock:
            self._known.pop(key, None)
            self._unwritten.discard(key)
        try:
            self._failure_store.clear(key)
        except (TenancyError, PersistenceError) as error:
            extra = {"event": "failure.not_deleted", **error_fields(error), "tenant_id": str(key[0])}
            logger.warning("A resolved failure could not be deleted: %s", describe(error), extra=extra)

    def refresh(self) -> None:
        """Read the failures that other processes have stored or deleted, with one query."""
        with self._lock:
            waiting = [self._known[key] for key in self._unwritten if key in self._known]
        self._write(*waiting)
        with self._lock:
            known = dict(self._known)
            unwritten = set(self._unwritten)
        stored = self._failure_store.all()
        for key, failure in known.items():
            if key not in stored and key not in unwritten:
                with self._lock:
                    if self._known.get(key) is not failure:
                        continue
                    del self._known[key]
                self._retry(key)
        for key, failure in stored.items():
            if key not in self._known and self._assignments.holds(key[0]):
                with self._lock:
                    self._known.setdefault(key, failure)
                if failure.is_quarantined:
                    self._ready.block(key, (failure.leader,), math.inf)

    def _retry(self, key: Key) -> None:
        for assignment in self._assignments.of(key):
            assignment.position = None
        self._ready.unblock(key)

    def forget(self, tenant_ids: Iterable[object]) -> None:
        """Drop the failures of tenants that are no longer assigned to this process."""
        gone = set(tenant_ids)
        with self._lock:
            for key in [key for key in self._known if key[0] in gone]:
                del self._known[key]
                self._unwritten.discard(key)
