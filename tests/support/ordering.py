"""A reader that follows a table by id, and checks that it misses nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Self

from eventsourcing.persistence import Notification, StoredEvent, Tracking

from eventsourcing_sqlalchemy.dialects.protocols import Batch
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.applications import Applications, stored_events
from tests.support.deadlines import run_together

LOCK = "pg_advisory_xact_lock"


class PollingReader:
    """Repeatedly reads the rows above the last id, in a thread; `ids` holds what it found.

    Continues after the errors in `survives`.
    """

    def __init__(self, recorder: SQLAlchemyProcessRecorder, survives: tuple[type[Exception], ...] = ()) -> None:
        self.ids: list[int] = []
        self._recorder = recorder
        self._survives = survives
        self._position = recorder.max_notification_id() or 0
        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, name="polling reader")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            is_last = False
            while not is_last:
                # Set before the last read, which therefore finds everything written.
                is_last = self._stopping.is_set()
                while found := self._page():
                    self.ids += [notification.id for notification in found]
                    self._position = self.ids[-1]
        except Exception as error:  # noqa: BLE001 (raised where the reader is used)
            self._error = error

    def _page(self) -> Sequence[Notification]:
        while True:
            try:
                return self._recorder.select_notifications(self._position, 1000, inclusive_of_start=False)
            except self._survives:
                pass


def assert_in_order(calls: Iterable[list[int]], read: Sequence[int]) -> None:
    """Fail unless a polling reader saw all ids, and the ids of each call are adjacent."""
    calls = sorted(calls)
    late = {number for ids in calls for number in ids}.difference(read)
    assert not late, f"late: {sorted(late)[:10]} became visible after a higher id was read"
    for ids in calls:
        assert ids == sorted(ids), f"not in the order of the events: {ids}"
    mixed = [(ids, others) for ids, others in pairwise(calls) if ids[-1] >= others[0]]
    assert not mixed, f"interleaved: {mixed[:3]}"


def _writers(recorder: SQLAlchemyProcessRecorder) -> list[Any]:
    return [recorder._writer, recorder._session_writer]  # noqa: SLF001 (not selectable by users)


def write_in_rows(recorder: SQLAlchemyProcessRecorder) -> None:
    """Make a PostgreSQL recorder write every batch like a large one: a transaction with a lock and rows."""
    for writer in _writers(recorder):
        writer.pack = partial(_pack_for_rows, writer.pack)


def _pack_for_rows(pack: Callable[..., Batch], events: Sequence[StoredEvent], tracking: Tracking | None) -> Batch:
    return replace(pack(events, tracking), needs_transaction=True, can_join=False)


def write_without_lock(recorder: SQLAlchemyProcessRecorder) -> None:
    """Remove the writer lock from a PostgreSQL recorder's statements, to prove that a test detects its absence."""
    for writer in _writers(recorder):
        statements = {name: value for name, value in vars(writer).items() if isinstance(value, (str, tuple))}
        locking = {name: value for name, value in statements.items() if LOCK in str(value)}
        assert locking
        for name, value in locking.items():
            setattr(writer, name, _without_lock(value))
        assert LOCK not in str(vars(writer))


def _without_lock(value: Any) -> Any:
    return type(value)(*map(_without_lock, value)) if isinstance(value, tuple) else value.replace(LOCK, "int8abs")


def write_mixed_batches(recorder: SQLAlchemyProcessRecorder, calls: int, seed: int) -> list[list[int]]:
    """Record batches of one and of several events, some with a tracking position; return the ids of each call."""
    chooser = random.Random(seed)  # noqa: S311 (chance for tests)
    ids = []
    for number in range(1, calls + 1):
        events = stored_events(chooser.choice((1, 1, 2, 5, 60)), state=b"x" * 50)
        tracking = Tracking(f"upstream {seed}", number) if number % 3 == 0 else None
        ids.append(list(recorder.insert_events(events, tracking=tracking) or ()))
        assert len(ids[-1]) == len(events)
    return ids


def write_in_process(url: str, form: str, threads: int, calls: int, seed: int) -> list[list[int]]:
    """Run `write_mixed_batches` in many threads with a separate engine, as in another process."""
    with Applications(url, pool_size=threads) as apps:
        recorder = apps.recorder()
        if form == "rows":
            write_in_rows(recorder)
        written = run_together(
            [partial(write_mixed_batches, recorder, calls, seed + thread) for thread in range(threads)]
        )
    return [ids for calls in written for ids in calls]
