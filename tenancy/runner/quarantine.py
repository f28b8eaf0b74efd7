"""Followers that fail: how long they wait, when they are given up, and when they may try again."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy.errors import describe
from tenancy.errors import TenancyError
from tenancy.runner.failures import Failure, FailureStore, failure_of

if TYPE_CHECKING:
    from tenancy.runner.assignments import Assignment, Assignments
    from tenancy.runner.ready_queue import Key, ReadyQueue

__all__ = ["Quarantine"]

logger = logging.getLogger(__name__)

_FIRST_DELAY: Final = 0.1
_MAX_DELAY: Final = 30.0
# More doublings make no difference, and at last a number that is none.
_MAX_DOUBLINGS: Final = 30


def _delay(attempts: int) -> float:
    return float(min(_FIRST_DELAY * 2 ** min(attempts - 1, _MAX_DOUBLINGS), _MAX_DELAY))


class Quarantine:
    """The failures of the followers that this process works for. Safe to use from many threads.

    The truth is in the control database: a failure that somebody removes there may be tried again here.
    """

    def __init__(
        self, failure_store: FailureStore, assignments: Assignments, ready: ReadyQueue, max_attempts: int
    ) -> None:
        self._failure_store = failure_store
        self._assignments = assignments
        self._ready = ready
        self._max_attempts = max_attempts
        # Guards what follows, for operations in memory only.
        self._lock = threading.Lock()
        self._known: dict[Key, Failure] = {}
        # What is known here and could not be written yet.
        self._unwritten: set[Key] = set()

    def get(self, key: Key) -> Failure | None:
        """Return what a follower has met last, or None when it goes well."""
        return self._known.get(key)

    def record_failure(
        self, error: BaseException, assignment: Assignment, notification_id: int | None, leaders: Iterable[str]
    ) -> None:
        """Let a follower wait after an error, or for good when there were too many."""
        key = assignment.key
        before = self._known.get(key) or self._recorded(key)
        failure = failure_of(
            error, key, assignment.pipe.leader, notification_id, before, max_attempts=self._max_attempts
        )
        delay = math.inf if failure.is_quarantined else _delay(failure.attempts)
        # At once: a follower that is blocked and of which no failure is known would be blocked for ever.
        with self._lock:
            self._known[key] = failure
            self._unwritten.add(key)
            self._ready.block(key, leaders, delay)
        logger.log(
            logging.ERROR if failure.is_quarantined else logging.WARNING,
            "Follower %s is %s %s: %s",
            failure.follower,
            "stopped" if failure.is_quarantined else "delayed",
            failure.where,
            failure.error,
            extra={
                "tenant_id": str(failure.tenant_id),
                "follower": failure.follower,
                "leader": failure.leader,
                "notification_id": failure.notification_id,
                "attempts": failure.attempts,
            },
        )
        self._write(failure)

    def _recorded(self, key: Key) -> Failure | None:
        # A follower may have a turn here before it is learned that it has stopped in the process that had it before.
        try:
            return self._failure_store.get(key)
        except (TenancyError, PersistenceError):
            return None

    def _write(self, *failures: Failure) -> None:
        for failure in failures:
            try:
                is_written = self._failure_store.record(failure)
            except (TenancyError, PersistenceError) as error:
                logger.warning(
                    "A failure is not written down yet; that is tried again in a second: %s", describe(error)
                )
                return
            with self._lock:
                if is_written and self._known.get(failure.key) is failure:
                    self._unwritten.discard(failure.key)

    def clear(self, key: Key, leader: str) -> None:
        """Know that a follower gets on behind a leader."""
        failure = self._known.get(key)
        if failure is None or failure.leader != leader:
            return
        with self._lock:
            self._known.pop(key, None)
            self._unwritten.discard(key)
        try:
            self._failure_store.clear(key)
        except (TenancyError, PersistenceError) as error:
            logger.warning("A failure that is over is still written down: %s", describe(error))

    def refresh(self) -> None:
        """Learn what other processes have met or removed; one query."""
        with self._lock:
            waiting = [self._known[key] for key in self._unwritten if key in self._known]
        self._write(*waiting)
        with self._lock:
            asked = dict(self._known)
            unwritten = set(self._unwritten)
        failure_store = self._failure_store.all()
        for key, failure in asked.items():
            if key not in failure_store and key not in unwritten:
                with self._lock:
                    if self._known.get(key) is not failure:
                        continue
                    del self._known[key]
                self._retry(key)
        for key, failure in failure_store.items():
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
        """Forget tenants that this process does not work for any more."""
        gone = set(tenant_ids)
        with self._lock:
            for key in [key for key in self._known if key[0] in gone]:
                del self._known[key]
                self._unwritten.discard(key)
