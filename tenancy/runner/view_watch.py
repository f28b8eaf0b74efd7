"""A thread for the views over all tenants in one database, which may be down or slow: it reads their positions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final

from eventsourcing_sqlalchemy.background import Activity, keep_running
from tenancy.runner.comparison import Comparison
from tenancy.runner.failures import outage_of

if TYPE_CHECKING:
    from tenancy.runner.assignments import Assignment, Assignments
    from tenancy.runner.lanes import Lanes
    from tenancy.runner.positions import RecordedPositions

__all__ = ["NO_ANSWER", "ViewWatch"]

logger = logging.getLogger(__name__)

NO_ANSWER: Final = "no answer"
"""The error of a database that neither answers nor refuses the connection."""

# Seconds between two comparisons, and those after which a query counts as unanswered.
_INTERVAL: Final = 2.0
_PATIENCE: Final = 5.0
# Positions read at a time.
_BATCH: Final = 200


class ViewWatch:
    """Locates the followers of some views, and detects positions that were set back. :meth:`run` is its thread.

    ``may_work`` says whether the process may process events now. ``request_sweep`` lets the coordinator wake the
    located followers that have work.
    """

    def __init__(
        self,
        name: str,
        followers: Collection[str],
        *,
        positions: RecordedPositions,
        assignments: Assignments,
        ready: Lanes,
        may_work: Callable[[], bool],
        request_sweep: Callable[[], None],
    ) -> None:
        self.name = name
        """Its name in :meth:`Runner.health`."""
        self.followers = frozenset(followers)
        self._assignments = assignments
        self._ready = ready
        self._may_work = may_work
        self._request_sweep = request_sweep
        self._comparison = Comparison(positions, ready)
        self._activity = Activity(name, f"Runner job {name!r} fails", logger, outage_of)
        self._alarm = threading.Event()
        # Guards the list, for in-memory operations only.
        self._lock = threading.Lock()
        self._new: list[Assignment] = []
        # When the current query began, by the monotonic clock.
        self._began: float | None = None

    @property
    def error(self) -> str | None:
        """The current error's class, NO_ANSWER for a query that takes long, or None."""
        began = self._began
        if began is not None and time.monotonic() - began > _PATIENCE:
            return NO_ANSWER
        return self._activity.error

    def locate(self, assignments: Iterable[Assignment]) -> None:
        """Read the recorded positions of new assignments soon, and enqueue them."""
        with self._lock:
            self._new += assignments
        self._alarm.set()

    def wake(self) -> None:
        """Let the thread look at once: it may work now, or must end."""
        self._alarm.set()

    def run(self, stopping: threading.Event) -> None:
        """Look until ``stopping`` is set, in intervals and when there are new assignments."""

        def step() -> bool:
            self._look(stopping)
            self._alarm.wait(_INTERVAL)
            self._alarm.clear()
            return not stopping.is_set()

        keep_running(self._activity, step, stopping)

    def _look(self, stopping: threading.Event) -> None:
        self._began = time.monotonic()
        try:
            while self._may_work() and not stopping.is_set():
                with self._lock:
                    batch, self._new = self._new[:_BATCH], self._new[_BATCH:]
                if not batch:
                    ours = [each for each in self._assignments.all() if each.pipe.follower in self.followers]
                    self._comparison.detect_rewinds(ours)
                    return
                self._locate(batch)
                self._began = time.monotonic()
        finally:
            self._began = None

    def _locate(self, batch: list[Assignment]) -> None:
        new = [assignment for assignment in batch if assignment.position is None]
        try:
            self._comparison.locate(new)
        finally:
            for assignment in batch:
                # The first slice reads a position that is still unknown.
                if assignment not in new or assignment.position is None:
                    self._ready.add(assignment.key, (assignment.pipe.leader,))
            self._request_sweep()
