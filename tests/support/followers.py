"""Follow an application in a thread, and count the reads."""

from __future__ import annotations

import threading
from typing import Any, Self

from eventsourcing.persistence import Notification

from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.deadlines import wait_until


class Follower:
    """Follows new events: `topics` are those of received events, `reads` counts the reads."""

    def __init__(self, recorder: SQLAlchemyProcessRecorder) -> None:
        self.reads = 0
        self.topics: list[str] = []
        self._select = recorder.select_notifications
        recorder.select_notifications = self._count  # type: ignore[method-assign]
        self._subscription = recorder.subscribe(gt=recorder.max_notification_id())
        self._thread = threading.Thread(target=self._follow, name="follower")

    def __enter__(self) -> Self:
        self._thread.start()
        # A subscription listens before its first read.
        wait_until(lambda: self.reads > 0, "the subscription reads for the first time")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._subscription.stop()
        self._thread.join()

    def wait_for(self, *expected: str) -> None:
        """Wait until exactly these topics have been received."""
        wait_until(lambda: self.topics == list(expected), f"{expected} instead of {self.topics}")

    def _count(self, *args: Any, **kwargs: Any) -> list[Notification]:
        notifications = self._select(*args, **kwargs)
        self.reads += 1
        return notifications

    def _follow(self) -> None:
        for notification in self._subscription:
            self.topics.append(notification.topic)
