"""The sweep: find work that no wake-up announced, by reading the id sequences of many leaders in one query.

It also detects recorded positions that an operator has set back. Each run checks a part of the followers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from eventsourcing_sqlalchemy.high_water import HighWaterMarks
from tenancy.runner.assignments import Assignment, Assignments, PendingGap
from tenancy.runner.comparison import Comparison

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from tenancy.runner.lanes import Lanes
    from tenancy.runner.positions import RecordedPositions

__all__ = ["MIN_SWEEP_INTERVAL", "SWEEP_INTERVAL", "SWEEP_INTERVAL_WITHOUT_WAKEUPS", "Sweep"]

# Seconds between sweeps.
SWEEP_INTERVAL: Final = 2.0
SWEEP_INTERVAL_WITHOUT_WAKEUPS: Final = 0.5
# Least pause before a requested sweep. Where wake-ups do not name the table, each commit requests one.
MIN_SWEEP_INTERVAL: Final = 0.02

# Seconds between comparisons of positions with the recorded ones. A sweep may run more often, after each commit.
_RECORD: Final = 2.0


class Sweep:
    """Compares leaders' id sequences with followers' positions. Not thread-safe.

    A sequence runs ahead of commits, and stays ahead after a rollback. So a gap counts as empty only once every
    transaction that was writing when the sequence was read has ended. A transaction takes its number a moment after
    its first id, so the gap's mark is a transaction number assigned at the next sweep.

    Without this, a follower behind a rolled-back transaction would take a slice at each sweep, until the next event: in
    an idle fleet, 200 such tenants with two followers each took 200 slices a second and four times the CPU time.
    """

    def __init__(
        self,
        datastore: SQLAlchemyDatastore,
        positions: RecordedPositions,
        assignments: Assignments,
        ready: Lanes,
    ) -> None:
        self._comparison = Comparison(positions, ready)
        self._last_ids = HighWaterMarks(datastore)
        self._assignments = assignments
        self._ready = ready
        self._recorded_at = -_RECORD

    def locate(self, assignments: Iterable[Assignment]) -> None:
        """Read the recorded positions of new assignments, as :meth:`Comparison.locate` does."""
        self._comparison.locate(assignments)

    def run(self) -> None:
        """Wake the followers that may have work."""
        assignments = self._assignments.all()
        last_ids = self._last_ids.read(list({assignment.events for assignment in assignments}))
        unsettled = []
        for assignment in assignments:
            last = last_ids.get(assignment.events, 0)
            assignment.lag.saw(last, assignment.reached)
            if last <= max(assignment.position or 0, assignment.settled_up_to):
                assignment.pending_gap = None
            elif assignment.pending_gap is None or assignment.pending_gap.last != last:
                assignment.pending_gap = PendingGap(last)
                self._wake(assignment)
            elif assignment.pending_gap.is_final:
                self._wake(assignment)
            else:
                unsettled.append(assignment)
        if unsettled:
            self._resolve(unsettled)
        if time.monotonic() - self._recorded_at >= _RECORD:
            self._recorded_at = time.monotonic()
            self._schedule_recording(assignments)
            self._comparison.detect_rewinds([each for each in assignments if each.tracking is not None])

    def _schedule_recording(self, assignments: Iterable[Assignment]) -> None:
        # A follower that skips events by topic, or a projection that ignores them, records no position. Recording it
        # here keeps the cost per interval, not per event.
        for assignment in assignments:
            if (assignment.position or 0) > assignment.recorded:
                assignment.is_comparison_due = True
                self._wake(assignment)

    def _resolve(self, assignments: Iterable[Assignment]) -> None:
        transaction_horizon = self._last_ids.transaction_horizon()
        for assignment in assignments:
            pending_gap = assignment.pending_gap
            if pending_gap is None:
                continue  # a worker has closed the gap meanwhile
            if transaction_horizon is not None and pending_gap.mark is None:
                pending_gap.mark = transaction_horizon[1]
            elif transaction_horizon is None or transaction_horizon[0] >= (pending_gap.mark or 0):
                pending_gap.is_final = True
                self._wake(assignment)

    def _wake(self, assignment: Assignment) -> None:
        self._ready.add(assignment.key, (assignment.pipe.leader,))
