"""Find work that no wake-up told of: one look at what counts the ids of all leaders, not a query for each tenant.

It also finds recorded positions that were set back by hand, of some followers in each run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from eventsourcing_sqlalchemy.high_water import HighWaterMarks, read_positions
from tenancy.runner.assignments import Assignment, Assignments, PendingGap

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from tenancy.runner.ready_queue import ReadyQueue

__all__ = ["Sweep"]

# How often positions are compared with the recorded ones: a sweep may come with each commit. Seconds.
_RECORD: Final = 2.0
# How many followers at a time, as each costs the server a table in a query.
_COMPARE_BATCH: Final = 200


class Sweep:
    """Compares counters with how far followers are. For one thread.

    A counter runs ahead of commits, and stays ahead after a rollback. So "there is nothing" is believed only when all
    transactions that had begun to write when the counter was seen have ended. A transaction gets its number a moment
    after it has got an id, so its number is compared with one that is given out at the next sweep.
    """

    def __init__(self, datastore: SQLAlchemyDatastore, assignments: Assignments, ready: ReadyQueue) -> None:
        self._datastore = datastore
        self._last_ids = HighWaterMarks(datastore)
        self._assignments = assignments
        self._ready = ready
        self._recorded_at = -_RECORD
        self._compared = 0

    def locate(self, assignments: Iterable[Assignment]) -> None:
        """Learn the recorded positions of new courses, so that only those have to look that have something to do."""
        assignments = list(assignments)
        positions = read_positions(self._datastore, list({assignment.tracking for assignment in assignments}))
        for assignment in assignments:
            if assignment.tracking in positions and assignment.position is None:
                assignment.position = assignment.recorded = positions[assignment.tracking].get(
                    assignment.pipe.leader, 0
                )

    def run(self) -> None:
        """Let those look who may have something to do."""
        assignments = self._assignments.all()
        last_ids = self._last_ids.read(list({assignment.events for assignment in assignments}))
        unsettled = []
        for assignment in assignments:
            last = last_ids.get(assignment.events, 0)
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
            self._detect_rewinds(assignments)

    def _detect_rewinds(self, assignments: Sequence[Assignment]) -> None:
        start = self._compared if self._compared < len(assignments) else 0
        self._compared = start + _COMPARE_BATCH
        # What is known now is recorded already; workers may record more before it is read.
        known = {assignment: assignment.recorded for assignment in assignments[start : self._compared]}
        positions = read_positions(self._datastore, list({assignment.tracking for assignment in known}))
        for assignment, recorded in known.items():
            if (
                assignment.tracking in positions
                and positions[assignment.tracking].get(assignment.pipe.leader, 0) < recorded
            ):
                assignment.is_comparison_due = True
                self._wake(assignment)

    def _schedule_recording(self, assignments: Iterable[Assignment]) -> None:
        # A follower that passes over events, or a projection that makes nothing of them, need not record anything: now
        # and then it is done for them, and not for each event.
        for assignment in assignments:
            if (assignment.position or 0) > assignment.recorded:
                assignment.is_comparison_due = True
                self._wake(assignment)

    def _resolve(self, assignments: Iterable[Assignment]) -> None:
        transaction_horizon = self._last_ids.transaction_horizon()
        for assignment in assignments:
            pending_gap = assignment.pending_gap
            if pending_gap is None:
                continue  # somebody has looked meanwhile
            if transaction_horizon is not None and pending_gap.mark is None:
                pending_gap.mark = transaction_horizon[1]
            elif transaction_horizon is None or transaction_horizon[0] >= (pending_gap.mark or 0):
                pending_gap.is_final = True
                self._wake(assignment)

    def _wake(self, assignment: Assignment) -> None:
        self._ready.add(assignment.key, (assignment.pipe.leader,))
