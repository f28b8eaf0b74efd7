"""Follow the events of an application as they are recorded.

A subscription reads in the thread that iterates over it, and sleeps between reads until it is woken. It has no thread
and no connection of its own.
"""

from __future__ import annotations

import logging
import time
import weakref
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from eventsourcing.persistence import ApplicationRecorder, Notification, OperationalError, Subscription

from eventsourcing_sqlalchemy.error_fields import error_fields
from eventsourcing_sqlalchemy.errors import is_retryable
from eventsourcing_sqlalchemy.notifications.wakeups import Waiter

__all__ = ["SQLAlchemySubscription", "SubscribableRecorder"]

logger = logging.getLogger(__name__)

_PAGE: Final = 500

# How long a subscription tolerates an unreachable database: longer than a restart or a fail-over. Seconds.
_PATIENCE: Final = 60.0


class SubscribableRecorder(ApplicationRecorder):
    """An application recorder that wakes its subscriptions."""

    @abstractmethod
    def wait_for_events(self) -> Waiter:
        """Return a waiter that is woken by every commit of events from now on."""


class SQLAlchemySubscription(Subscription[SubscribableRecorder]):
    """An iterator of notifications that waits for new ones. One thread may iterate; any thread may stop it.

    The first iteration registers for wake-ups before it reads, so that it misses no event.
    """

    def __init__(self, recorder: SubscribableRecorder, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=tuple(topics))
        self._notifications: Sequence[Notification] = ()
        self._position = 0
        self._waiter: Waiter | None = None
        self._leave: weakref.finalize[Any, Any] | None = None
        self._failing_since: float | None = None

    def __exit__(self, *args: object, **kwargs: Any) -> None:
        super().__exit__(*args, **kwargs)
        self._close()

    def stop(self) -> None:
        """End the iteration, also one that waits."""
        super().stop()
        waiter = self._waiter
        if waiter is not None:
            waiter.wake()

    def __next__(self) -> Notification:
        """Return the next notification; waits for one.

        Raises StopIteration once the subscription is stopped, and OperationalError when the database has been
        unreachable for a minute.
        """
        while not self._has_been_stopped:
            if self._position < len(self._notifications):
                notification = self._notifications[self._position]
                self._position += 1
                return notification
            if self._waiter is None:
                self._waiter = self._recorder.wait_for_events()
                self._leave = weakref.finalize(self, self._waiter.abandon)
                self._leave.atexit = False
                continue
            self._waiter.clear()
            try:
                self._read()
                self._failing_since = None
            except OperationalError as error:
                self._tolerate(error)
            if not self._notifications and not self._has_been_stopped:
                self._waiter.sleep()
        self._close()
        raise StopIteration

    def _read(self) -> None:
        """Read the next page."""
        # With topics, events up to this id are not read again: no event with a lower id becomes visible later.
        passed = self._recorder.max_notification_id() if self._topics else None
        self._notifications = self._recorder.select_notifications(
            start=self._last_notification_id, limit=_PAGE, topics=self._topics, inclusive_of_start=False
        )
        self._position = 0
        if self._notifications:
            self._last_notification_id = self._notifications[-1].id
        elif passed is not None:
            self._last_notification_id = max(passed, self._last_notification_id or 0)

    def _tolerate(self, error: OperationalError) -> None:
        """Ignore a retryable error, such as a server restart; raise it once it has lasted for a minute."""
        if not is_retryable(error):
            raise error
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            extra = {"event": "subscription.failed", **error_fields(error)}
            logger.warning("A subscription cannot read, and retries: %s", error, extra=extra)
        if now - self._failing_since > _PATIENCE:
            raise error
        self._notifications = ()
        self._position = 0

    def _close(self) -> None:
        if self._leave is not None and self._waiter is not None and self._leave.detach():
            self._waiter.close()
