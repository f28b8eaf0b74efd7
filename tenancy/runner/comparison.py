"""Compare the remembered positions of followers with the recorded ones, some followers at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tenancy.runner.assignments import Assignment
    from tenancy.runner.lanes import Lanes
    from tenancy.runner.positions import RecordedPositions

__all__ = ["Comparison"]

# Followers compared in one run. Each adds a table to the query.
_BATCH: Final = 200


class Comparison:
    """Reads recorded positions. Used by one thread."""

    def __init__(self, positions: RecordedPositions, ready: Lanes) -> None:
        self._positions = positions
        self._ready = ready
        # Where the next comparison starts.
        self._start = 0

    def locate(self, assignments: Iterable[Assignment]) -> None:
        """Read the recorded positions of new assignments, so that only followers with work are woken."""
        assignments = list(assignments)
        positions = self._positions.read(assignment.follower for assignment in assignments)
        for assignment in assignments:
            position = positions.get((assignment.tenant.id, assignment.pipe))
            if position is not None and assignment.position is None:
                assignment.position = assignment.recorded = position

    def detect_rewinds(self, assignments: Sequence[Assignment]) -> None:
        """Wake followers whose recorded position was set back, among the next part of ``assignments``."""
        start = self._start if self._start < len(assignments) else 0
        self._start = start + _BATCH
        # Taken before the query: workers may record later positions meanwhile.
        known = {assignment: assignment.recorded for assignment in assignments[start : self._start]}
        positions = self._positions.read(assignment.follower for assignment in known)
        for assignment, recorded in known.items():
            if positions.get((assignment.tenant.id, assignment.pipe), recorded) < recorded:
                assignment.is_comparison_due = True
                self._ready.add(assignment.key, (assignment.pipe.leader,))
