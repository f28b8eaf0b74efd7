"""Group commit: write the events that several threads append to one table in one statement, with one commit.

Without it, the threads would write one after another, and each would wait for a commit of its own. A thread that finds
no other one writing writes at once, alone, for the price of a lock. The others queue. When the writer is done, the
first thread in the queue writes the entries of the queue, as many whole calls as fit, and gives each its result. An
entry is queued, then taken by the writing thread, then done; its thread may leave only while it is queued. An error of
one call must not reach another: see :class:`GroupCommit`.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from threading import get_ident
from typing import Final, Protocol

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy.dialects.protocols import Batch
from eventsourcing_sqlalchemy.errors import ConnectionLostError, is_retryable
from eventsourcing_sqlalchemy.locks import renew_after_fork

__all__ = ["MAX_BYTES", "MAX_ROWS", "GroupCommit"]

MAX_ROWS: Final = 1000
MAX_BYTES: Final = 2**20

# A thread may be interrupted between any two steps, also between releasing the write lock and waking the next thread.
# So waiting threads also check at this interval. Seconds.
_LOST_WAKE_UP: Final = 0.1


class _State(Enum):
    QUEUED = "queued"
    TAKEN = "taken"
    DONE = "done"
    LEFT = "left"


class _Entry:
    """A call that waits for the write lock, and its result."""

    __slots__ = ("batch", "error", "gate", "ids", "is_joined", "state")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.state = _State.QUEUED
        self.ids: list[int] = []
        self.error: Exception | None = None
        self.is_joined = False
        self.gate = threading.Lock()
        self.gate.acquire()

    def wake(self) -> None:
        """End the wait of the entry's thread, or its next one."""
        with suppress(RuntimeError):  # it has been woken already
            self.gate.release()

    def finish(self) -> None:
        """Wake the entry's thread, which continues with the result."""
        self.state = _State.DONE
        self.wake()


class BatchRecorder(Protocol):
    """The recorder that writes the batches."""

    def write_batch(self, batch: Batch) -> list[int]:
        """Write a batch, whole or not at all, and return the ids in the order of its events."""

    def write_batch_again(self, batch: Batch) -> list[int]:
        """Make sure that a batch is written after a ConnectionLostError, which leaves that open."""

    def join_batches(self, batches: Sequence[Batch]) -> Batch:
        """Return one batch of all events in their order."""


class GroupCommit:
    """The appends of one recorder. Safe to use from many threads, and after a fork.

    An error of a group does not tell which member caused it. When the database refuses something, such as a value or a
    conflict, each member is written alone, by its own thread. When the connection breaks, or the writing thread is
    interrupted, each is written again by its own thread, which compares. Retryable errors, such as a lock timeout, are
    raised in every thread.
    """

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Start with an empty queue: a child process does not have the parent's threads."""
        self._queue: deque[_Entry] = deque()
        # Guards the states of the entries and the order of the queue, for operations in memory only.
        self._states = threading.RLock()
        # Held by the thread that writes, for as long as a statement takes. Only ever taken by `with`, which no
        # interrupt can come between.
        self._write_lock = threading.Lock()
        self._leader: int | None = None

    def append(self, recorder: BatchRecorder, batch: Batch) -> list[int]:
        """Write a batch, alone or together with others, and return its ids; raises what writing it alone would."""
        me = get_ident()
        if self._leader == me:
            # Called by a finalizer or a signal handler while this thread writes: it cannot wait for itself.
            return _write_alone(recorder, batch)
        if self._queue or self._write_lock.locked():
            return _outcome(recorder, self._write_in_group(recorder, batch))
        try:
            with self._write_lock:
                self._leader = me
                try:
                    return recorder.write_batch(batch)
                finally:
                    self._leader = None
        except ConnectionLostError:
            pass  # written again below, after the next thread has been woken
        finally:
            self._wake_next()
        return recorder.write_batch_again(batch)

    def _write_in_group(self, recorder: BatchRecorder, batch: Batch) -> _Entry:
        """Queue an entry for the batch, and return it when it is done."""
        me, entry = get_ident(), _Entry(batch)
        try:
            self._queue.append(entry)
            while entry.state is not _State.DONE:
                if self._write_lock.locked():
                    entry.gate.acquire(timeout=_LOST_WAKE_UP)
                    continue
                try:
                    with self._write_lock:
                        # First of all, and until the end: a finalizer's append in this thread cannot wait for it.
                        self._leader = me
                        try:
                            self._lead(recorder, entry)
                        finally:
                            self._leader = None
                finally:
                    # Before an error is raised here: the other threads must not wait for it.
                    self._wake_next()
        except BaseException:
            self._leave(entry)
            raise
        return entry

    def _lead(self, recorder: BatchRecorder, mine: _Entry) -> None:
        """Write what is queued; called while this thread holds the write lock."""
        if mine.state is _State.TAKEN:
            # Taken by a thread that was interrupted before it could give the result.
            mine.error = ConnectionLostError()
            mine.finish()
        if mine.state is _State.DONE:
            return
        members: list[_Entry] = []
        outcome: Exception | None = ConnectionLostError()  # unless the outcome is known
        try:
            self._take(members)
            _write_together(recorder, members)
            outcome = None
        except Exception as error:  # noqa: BLE001 (each member raises it or retries)
            outcome = error
        finally:
            for member in members:
                member.error = outcome
                member.finish()

    def _take(self, members: list[_Entry]) -> None:
        """Mark queued entries as taken and append them to ``members``: at least one, and as many as may be written
        together.
        """
        rows = size = 0
        with self._states:
            for entry in list(self._queue):
                if entry.state is not _State.QUEUED:
                    continue
                rows += len(entry.batch.events)
                size += entry.batch.size
                if members and (rows > MAX_ROWS or size > MAX_BYTES):
                    break
                members.append(entry)
                entry.state = _State.TAKEN

    def _wake_next(self) -> None:
        """Remove entries that are done, and wake the first thread that waits for the write lock."""
        if not self._queue:
            return
        with self._states:
            while self._queue:
                first = self._queue[0]
                if first.state is _State.QUEUED:
                    first.wake()
                    return
                with suppress(ValueError):  # a finalizer that appends has removed it
                    self._queue.remove(first)

    def _leave(self, entry: _Entry) -> None:
        """Give up an entry that is queued; wait for one that is taken, because it may be written."""
        with self._states:
            if entry.state is _State.QUEUED:
                entry.state = _State.LEFT
        while entry.state is _State.TAKEN and self._write_lock.locked():
            entry.gate.acquire(timeout=_LOST_WAKE_UP)
        self._wake_next()


def _write_alone(recorder: BatchRecorder, batch: Batch) -> list[int]:
    try:
        return recorder.write_batch(batch)
    except ConnectionLostError:
        return recorder.write_batch_again(batch)


def _write_together(recorder: BatchRecorder, members: Sequence[_Entry]) -> None:
    if len(members) == 1:
        members[0].ids = recorder.write_batch(members[0].batch)
        return
    for member in members:
        member.is_joined = True
    ids = recorder.write_batch(recorder.join_batches([member.batch for member in members]))
    start = 0
    for member in members:
        end = start + len(member.batch.events)
        member.ids = ids[start:end]
        start = end


def _outcome(recorder: BatchRecorder, entry: _Entry) -> list[int]:
    """Return the ids of an entry that is done; write it alone if the group failed."""
    error = entry.error
    if error is None:
        return entry.ids
    if isinstance(error, ConnectionLostError):
        return recorder.write_batch_again(entry.batch)
    if entry.is_joined and not (isinstance(error, PersistenceError) and is_retryable(error)):
        return _write_alone(recorder, entry.batch)
    # One exception object must not be raised in several threads.
    mine = copy.copy(error)
    raise mine from error.__cause__
