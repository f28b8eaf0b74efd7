"""Find work that no wake-up told of: one look at what counts the ids of all leaders, not a query for each tenant.

It also finds recorded positions that were set back by hand, of some followers in each run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from eventsourcing_sqlalchemy.positions import LastIDs, read_positions
from tenancy.runner.courses import Course, Courses, Doubt

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from tenancy.runner.ready import ReadyQueue

__all__ = ["Sweep"]

# How often positions are compared with the recorded ones: a sweep may come with each commit. Seconds.
_RECORD: Final = 2.0
# How many followers at a time, as each costs the server a table in a query.
_COMPARED_AT_ONCE: Final = 200


class Sweep:
    """Compares counters with how far followers are. For one thread.

    A counter runs ahead of commits, and stays ahead after a rollback. So "there is nothing" is believed only when all
    transactions that had begun to write when the counter was seen have ended. A transaction gets its number a moment
    after it has got an id, so its number is compared with one that is given out at the next sweep.
    """

    def __init__(self, datastore: SQLAlchemyDatastore, courses: Courses, ready: ReadyQueue) -> None:
        self._datastore = datastore
        self._last_ids = LastIDs(datastore)
        self._courses = courses
        self._ready = ready
        self._recorded_at = -_RECORD
        self._compared = 0

    def locate(self, courses: Iterable[Course]) -> None:
        """Learn the recorded positions of new courses, so that only those have to look that have something to do."""
        courses = list(courses)
        positions = read_positions(self._datastore, list({course.tracking for course in courses}))
        for course in courses:
            if course.tracking in positions and course.position is None:
                course.position = course.recorded = positions[course.tracking].get(course.pipe.leader, 0)

    def run(self) -> None:
        """Let those look who may have something to do."""
        courses = self._courses.all()
        last_ids = self._last_ids.read(list({course.events for course in courses}))
        doubtful = []
        for course in courses:
            last = last_ids.get(course.events, 0)
            if last <= max(course.position or 0, course.settled):
                course.doubt = None
            elif course.doubt is None or course.doubt.last != last:
                course.doubt = Doubt(last)
                self._wake(course)
            elif course.doubt.is_final:
                self._wake(course)
            else:
                doubtful.append(course)
        if doubtful:
            self._resolve(doubtful)
        if time.monotonic() - self._recorded_at >= _RECORD:
            self._recorded_at = time.monotonic()
            self._let_record(courses)
            self._find_set_back(courses)

    def _find_set_back(self, courses: Sequence[Course]) -> None:
        start = self._compared if self._compared < len(courses) else 0
        self._compared = start + _COMPARED_AT_ONCE
        # What is known now is recorded already; workers may record more before it is read.
        known = {course: course.recorded for course in courses[start : self._compared]}
        positions = read_positions(self._datastore, list({course.tracking for course in known}))
        for course, recorded in known.items():
            if course.tracking in positions and positions[course.tracking].get(course.pipe.leader, 0) < recorded:
                course.is_to_be_compared = True
                self._wake(course)

    def _let_record(self, courses: Iterable[Course]) -> None:
        # A follower that passes over events, or a projection that makes nothing of them, need not record anything: now
        # and then it is done for them, and not for each event.
        for course in courses:
            if (course.position or 0) > course.recorded:
                course.is_to_be_compared = True
                self._wake(course)

    def _resolve(self, courses: Iterable[Course]) -> None:
        horizon = self._last_ids.horizon()
        for course in courses:
            doubt = course.doubt
            if doubt is None:
                continue  # somebody has looked meanwhile
            if horizon is not None and doubt.mark is None:
                doubt.mark = horizon[1]
            elif horizon is None or horizon[0] >= (doubt.mark or 0):
                doubt.is_final = True
                self._wake(course)

    def _wake(self, course: Course) -> None:
        self._ready.add(course.key, (course.pipe.leader,))
