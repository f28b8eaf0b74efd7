"""An in-memory table that several threads append to, with database faults chosen by the test."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Self
from uuid import UUID, uuid4

from eventsourcing.persistence import DataError, IntegrityError, OperationalError, StoredEvent

from eventsourcing_sqlalchemy.dialects.protocols import Batch
from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.errors import ConnectionLostError
from eventsourcing_sqlalchemy.group_commit import GroupCommit
from eventsourcing_sqlalchemy.recorders import SQLAlchemyAggregateRecorder
from tests.support.applications import stored_events
from tests.support.deadlines import DEADLINE_SECONDS, wait_until

REFUSED = "refused"
"""The topic of an event that the table refuses."""

_again: Any = SQLAlchemyAggregateRecorder.write_batch_again


class Interrupted(BaseException):
    """Raised in a thread from outside, as Ctrl-C raises KeyboardInterrupt in the main thread."""


class Table:
    """Writes as a recorder does. Each statement consumes one of the `faults`; None is no fault.

    An event's id is its position in `rows`. `statements` are the received batches, `again` those written again after a
    lost connection, `suffered` the faults that occurred. `before_write` is called in each statement.
    """

    def __init__(self, faults: Iterable[str | None] = ()) -> None:
        self.rows: list[StoredEvent] = []
        self.statements: list[Batch] = []
        self.again: list[Batch] = []
        self.faults = list(faults)
        self.suffered: Counter[str] = Counter()
        self.before_write: Callable[[Batch], None] = lambda _: None
        self._subject = "Table"
        # No retry, which would hide a fault.
        self.datastore = SimpleNamespace(settings=EngineSettings(commit_resolve_timeout=0.0))
        self._lock = threading.Lock()

    def write_batch(self, batch: Batch) -> list[int]:
        with self._lock:
            self.statements.append(batch)
            fault = self.faults.pop(0) if self.faults else None
        self.before_write(batch)
        if fault in {"lock timeout", "lost before", "interrupted before"}:
            self._suffer(fault)
        ids = self._insert(batch.events)
        if fault is not None:
            self._suffer(fault)
        return ids

    def _suffer(self, fault: str) -> None:
        with self._lock:
            self.suffered[fault] += 1
        if fault == "lock timeout":
            raise OperationalError(fault) from TimeoutError()
        if fault.startswith("lost"):
            raise ConnectionLostError(fault)
        raise Interrupted

    def _insert(self, events: Sequence[StoredEvent]) -> list[int]:
        with self._lock:
            if any(event.topic == REFUSED for event in events):
                raise DataError(REFUSED)
            new = Counter(map(key, events))
            if max(new.values(), default=0) > 1 or new.keys() & set(map(key, self.rows)):
                raise IntegrityError("taken")
            start = len(self.rows)
            self.rows += events
            return list(range(start, len(self.rows)))

    def write_batch_again(self, batch: Batch) -> list[int]:
        with self._lock:
            self.again.append(batch)
        ids: list[int] = _again(self, batch)
        return ids

    def _ids_if_recorded(self, events: Sequence[StoredEvent], _: object) -> list[int] | None:
        with self._lock:
            return [self.rows.index(event) for event in events] if set(events) <= set(self.rows) else None

    def join_batches(self, batches: Sequence[Batch]) -> Batch:
        return batch_of([event for batch in batches for event in batch.events], sum(batch.size for batch in batches))


def key(event: StoredEvent) -> tuple[UUID | str, int]:
    """Return the unique key."""
    return event.originator_id, event.originator_version


def batch_of(events: Sequence[StoredEvent], size: int = 0) -> Batch:
    """Return a batch that claims to have this size in bytes."""
    return Batch(events, None, size, needs_transaction=False, can_join=True)


def new_batch(count: int = 1) -> Batch:
    """Return a batch of new events."""
    return batch_of(stored_events(count, uuid4()))


class Call:
    """An append in its own thread; `ids` or `error` is the outcome."""

    def __init__(
        self, group: GroupCommit, table: Table, batch: Batch, around: Callable[[], object] = lambda: None
    ) -> None:
        self.batch = batch
        self.ids: list[int] | None = None
        self.error: BaseException | None = None
        self._group, self._table, self._around = group, table, around
        self.thread = threading.Thread(target=self._run, daemon=True)  # a hanging thread fails only this test
        self.thread.start()

    def _run(self) -> None:
        try:
            self._around()
            self.ids = self._group.append(self._table, self.batch)
        except BaseException as error:  # noqa: BLE001 (checked by the test)
            self.error = error

    def ident(self) -> int:
        """Return the thread's identifier."""
        assert self.thread.ident is not None
        return self.thread.ident

    def end(self) -> None:
        """Wait for the call to end."""
        self.thread.join(DEADLINE_SECONDS)
        assert not self.thread.is_alive(), "a thread hangs"


class Busy:
    """A group that is occupied during the block, so that new calls queue."""

    def __init__(self, group: GroupCommit, table: Table) -> None:
        self._group, self._table = group, table
        self._may_end = threading.Event()
        self.calls: list[Call] = []

    def __enter__(self) -> Self:
        batch, before, has_begun = new_batch(), self._table.before_write, threading.Event()

        def hold(written: Batch) -> None:
            if written is batch:
                has_begun.set()
                assert self._may_end.wait(DEADLINE_SECONDS)
            else:
                before(written)

        self._table.before_write = hold
        self._table.faults.insert(0, None)
        self.calls.append(Call(self._group, self._table, batch))
        assert has_begun.wait(DEADLINE_SECONDS)
        return self

    def queue(self, batch: Batch, around: Callable[[], object] = lambda: None) -> Call:
        """Start another append, and wait until it queues."""
        queue = self._group._queue  # noqa: SLF001 (internal)
        before = list(queue)
        call = Call(self._group, self._table, batch, around)
        self.calls.append(call)

        def queues() -> bool:
            # Not by the length of the queue, because an interrupted call may leave it at the same time.
            return any(entry not in before for entry in list(queue)) or not call.thread.is_alive()

        wait_until(queues, "the call queues")
        return call

    def __exit__(self, *exc_info: object) -> None:
        self._may_end.set()
        for call in self.calls:
            call.end()


def is_queued(group: GroupCommit, batch: Batch) -> bool:
    """Return whether a group holds a batch."""
    return any(entry.batch is batch for entry in list(group._queue))  # noqa: SLF001 (as above)


def assert_at_rest(group: GroupCommit) -> None:
    """Fail unless the group is in its initial state."""
    assert not group._queue, "batches are kept"  # noqa: SLF001 (as above)
    assert not group._write_lock.locked()  # noqa: SLF001
    assert group._leader is None  # noqa: SLF001
