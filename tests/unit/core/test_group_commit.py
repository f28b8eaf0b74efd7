"""Group commit: each caller gets the same result as alone."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest
from eventsourcing.persistence import DataError, IntegrityError, OperationalError, StoredEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from eventsourcing_sqlalchemy import group_commit
from eventsourcing_sqlalchemy.errors import ConnectionLostError
from eventsourcing_sqlalchemy.group_commit import GroupCommit
from tests.support.deadlines import wait_until
from tests.support.forked import forks, in_child
from tests.support.table_in_memory import (
    REFUSED,
    Busy,
    Call,
    Interrupted,
    Table,
    assert_at_rest,
    batch_of,
    is_queued,
    key,
    new_batch,
)

MAX_ROWS, MAX_BYTES = 6, 60
FAULTS = ("lock timeout", "lost before", "lost after", "interrupted before", "interrupted after")


@pytest.fixture
def group() -> GroupCommit:
    return GroupCommit()


@pytest.fixture
def table() -> Table:
    return Table()


def interrupt(call: Call) -> None:
    """Raise in the call's thread, from outside."""
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.ident()), ctypes.py_object(Interrupted)) == 1


# -- any schedule --


@dataclass(frozen=True)
class Plan:
    """One caller's append. `taken` is the caller of the round whose key it also uses, or -1 for none."""

    count: int
    size: int
    taken: int
    is_refused: bool
    is_interrupted: bool


plans = st.builds(
    Plan,
    count=st.integers(1, MAX_ROWS + 1),
    size=st.integers(1, MAX_BYTES + 1),
    taken=st.sampled_from([-1, -1, -1, 0, 1]),
    is_refused=st.sampled_from([False, False, False, True]),
    is_interrupted=st.sampled_from([False, False, False, False, True]),
)
rounds = st.lists(
    st.tuples(st.lists(plans, min_size=1, max_size=5), st.lists(st.sampled_from([None, *FAULTS]), max_size=6)),
    min_size=1,
    max_size=2,
)


def events_of(plan: Plan, number: int, round_number: int) -> list[StoredEvent]:
    """Return events whose states name the caller; the last one has the key of the caller in `taken`."""
    state = f"{round_number} {number}".encode()

    def originator_id(caller: int) -> UUID:
        return UUID(int=1000 * round_number + caller)

    events = [StoredEvent(originator_id(number), version, "topic", state) for version in range(plan.count)]
    if plan.taken not in {-1, number}:
        events.append(StoredEvent(originator_id(plan.taken), 0, "topic", state))
    if plan.is_refused:
        events.append(StoredEvent(originator_id(number), plan.count, REFUSED, state))
    return events


@given(rounds)
@settings(max_examples=200, deadline=None)
def test_each_call_learns_the_outcome_of_its_own_events(
    rounds: list[tuple[list[Plan], list[str | None]]],
) -> None:
    group, table = GroupCommit(), Table()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_commit, "MAX_ROWS", MAX_ROWS)
        patch.setattr(group_commit, "MAX_BYTES", MAX_BYTES)
        patch.setattr(group_commit, "_LOST_WAKE_UP", 0.01)
        for round_number, (callers, faults) in enumerate(rounds):
            table.faults, table.suffered = list(faults), type(table.suffered)()
            before = len(table.statements)
            with Busy(group, table) as busy:
                calls = [
                    busy.queue(batch_of(events_of(plan, number, round_number), plan.size))
                    for number, plan in enumerate(callers)
                ]
                interrupted = [call for call, plan in zip(calls, callers, strict=True) if plan.is_interrupted]
                for call in interrupted:
                    interrupt(call)
                for call in interrupted:
                    call.end()  # a queued call can leave without waiting for the write lock
            assert busy.calls[0].ids is not None
            assert_statements_are_whole_and_small(table, before, calls)
            assert_outcome_is_true(table, callers, calls, interrupted)
            assert_at_rest(group)
    assert len(set(map(key, table.rows))) == len(table.rows)


def assert_statements_are_whole_and_small(table: Table, start: int, calls: Sequence[Call]) -> None:
    for statement in table.statements[start:]:
        wholes = [call for call in calls if set(call.batch.events) & set(statement.events)]
        if wholes:
            # In queue order, adjacent, and none in part.
            assert [event for call in wholes for event in call.batch.events] == list(statement.events)
        if len(wholes) > 1:
            assert len(statement.events) <= MAX_ROWS
            assert statement.size == sum(call.batch.size for call in wholes) <= MAX_BYTES


def assert_outcome_is_true(
    table: Table, callers: Sequence[Plan], calls: Sequence[Call], interrupted: Sequence[Call]
) -> None:
    raised: dict[str, int] = dict.fromkeys(("interrupted", "lock timeout"), 0)
    for plan, call in zip(callers, calls, strict=True):
        events, error = call.batch.events, call.error
        written = [event for event in events if event in table.rows]
        assert written in ([], list(events))
        if call in interrupted:
            assert isinstance(error, Interrupted)
            assert not written
        elif error is None:
            assert call.ids is not None
            assert [table.rows[number] for number in call.ids] == list(events)
            assert call.ids == list(range(call.ids[0], call.ids[0] + len(events)))
        elif isinstance(error, Interrupted):
            raised["interrupted"] += 1
        elif isinstance(error, DataError):
            assert plan.is_refused
        elif isinstance(error, IntegrityError):
            taken = {key(event): event for event in table.rows}
            assert any(taken.get(key(event), event) != event for event in events)
        elif not isinstance(error, ConnectionLostError):
            assert isinstance(error, OperationalError)
            assert isinstance(error.__cause__, TimeoutError)
            assert not written
            raised["lock timeout"] += 1
    suffered = table.suffered
    assert raised["interrupted"] == suffered["interrupted before"] + suffered["interrupted after"]
    assert bool(raised["lock timeout"]) <= bool(suffered["lock timeout"])
    errors = [call.error for call in calls if call.error is not None]
    assert len(set(map(id, errors))) == len(errors), "one object was raised in two threads"


# -- one after the other --


def test_append_to_an_idle_group_is_written_immediately_and_alone(
    group: GroupCommit, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(GroupCommit, "_write_in_group")
    batch = new_batch(3)
    assert group.append(table, batch) == [0, 1, 2]
    assert table.statements == [batch]
    assert_at_rest(group)


def test_appends_during_a_write_become_one_statement(group: GroupCommit, table: Table) -> None:
    batches = [new_batch(count) for count in (2, 1, 3)]
    with Busy(group, table) as busy:
        calls = [busy.queue(batch) for batch in batches]
    assert [call.ids for call in calls] == [[1, 2], [3], [4, 5, 6]]
    assert len(table.statements) == 2
    assert_at_rest(group)


def test_group_size_is_limited(group: GroupCommit, table: Table) -> None:
    rows, size = group_commit.MAX_ROWS, group_commit.MAX_BYTES
    counts = [rows - 1, 1, 1]
    sizes = [size - 1, 1, 1]
    with Busy(group, table) as busy:
        for count in counts:
            busy.queue(new_batch(count))
    with Busy(group, table) as busy:
        for bytes_of_one in sizes:
            busy.queue(batch_of(new_batch().events, bytes_of_one))
    assert [len(statement.events) for statement in table.statements] == [1, rows, 1, 1, 2, 1]
    assert [statement.size for statement in table.statements[4:]] == [size, 1]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_members_of_an_interrupted_group_write_their_own_events(group: GroupCommit, table: Table, moment: str) -> None:
    table.faults = [f"interrupted {moment}"]
    batches = [new_batch(2) for _ in range(3)]
    with Busy(group, table) as busy:
        calls = [busy.queue(batch) for batch in batches]
    (leader,) = [call for call in calls if isinstance(call.error, Interrupted)]
    members = [call for call in calls if call is not leader]
    assert [batch in table.again for batch in batches] == [call is not leader for call in calls]
    for call in members:
        assert call.ids is not None
        assert [table.rows[number] for number in call.ids] == call.batch.events
    assert set(leader.batch.events) <= set(table.rows) or not set(leader.batch.events) & set(table.rows)
    assert_at_rest(group)


@pytest.mark.parametrize("error", ["lock timeout", "taken", REFUSED])
def test_error_of_a_group_reaches_the_call_that_caused_it(group: GroupCommit, table: Table, error: str) -> None:
    (taken,) = new_batch().events
    table.rows.append(StoredEvent(taken.originator_id, taken.originator_version, "theirs", b""))
    refused = StoredEvent(taken.originator_id, 2, REFUSED, b"")
    wrong = {"lock timeout": new_batch(), "taken": batch_of([taken]), REFUSED: batch_of([refused])}[error]
    table.faults = ["lock timeout"] if error == "lock timeout" else []
    with Busy(group, table) as busy:
        calls = [busy.queue(batch) for batch in (new_batch(), wrong, new_batch())]
    errors = [call.error for call in calls]
    if error == "lock timeout":
        assert [str(raised) for raised in errors] == ["lock timeout"] * 3
        assert len(set(map(id, errors))) == 3
        assert all(isinstance(raised.__cause__, TimeoutError) for raised in errors if raised)
    else:
        assert [str(raised) for raised in errors] == ["None", error, "None"]
    assert_at_rest(group)


# -- leaving --


def is_in(call: Call, function: str) -> bool:
    """Return whether a thread is in a function of the module."""
    frame = sys._current_frames().get(call.ident())  # noqa: SLF001 (the interpreter's interface for inspection)
    while frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back
    return frame is not None


def test_interrupted_queued_thread_leaves_immediately_and_writes_nothing(group: GroupCommit, table: Table) -> None:
    with Busy(group, table) as busy:
        leaving, staying = busy.queue(new_batch()), busy.queue(new_batch())
        interrupt(leaving)
        leaving.end()
        assert busy.calls[0].thread.is_alive()
    assert isinstance(leaving.error, Interrupted)
    assert table.rows[1:] == staying.batch.events
    assert_at_rest(group)


def test_thread_interrupted_during_its_write_leaves_after_the_write(group: GroupCommit, table: Table) -> None:
    leading, writing, may_end = new_batch(), threading.Event(), threading.Event()

    def hold(_: object) -> None:
        writing.set()
        assert may_end.wait(20)

    table.before_write = hold
    with Busy(group, table) as busy:
        leader, leaving = busy.queue(leading), busy.queue(new_batch())
        busy._may_end.set()  # noqa: SLF001 (the next calls lead)
        assert writing.wait(20)
        # Interrupt the one that does not write.
        member = leaving if is_in(leader, "write_batch") else leader
        interrupt(member)
        wait_until(lambda: is_in(member, "_leave"), "the interrupted thread is about to leave")
        assert not table.rows[1:]
        may_end.set()
    assert isinstance(member.error, Interrupted)
    assert set(member.batch.events) <= set(table.rows)
    assert_at_rest(group)


def test_nested_append_in_the_writing_thread_does_not_wait_for_itself(group: GroupCommit, table: Table) -> None:
    inner = new_batch()

    def append(batch: object) -> None:
        if batch is not inner:
            assert group.append(table, inner) == [0]

    table.before_write = append
    call = Call(group, table, new_batch())
    call.end()
    assert call.ids == [1]
    assert_at_rest(group)


@forks
def test_child_forked_during_a_write_can_append(group: GroupCommit, table: Table) -> None:
    with Busy(group, table) as busy:
        queued = busy.queue(new_batch())

        def append() -> list[int]:
            ids = group.append(table, new_batch())
            assert not is_queued(group, queued.batch)
            assert_at_rest(group)
            return ids

        table.faults = []
        assert in_child(append) == [0]
    assert queued.ids == [1]


def test_group_recovers_from_a_thread_that_took_it_and_vanished(
    group: GroupCommit, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, once = group_commit._Entry.finish, threading.Lock()  # noqa: SLF001 (between two steps)

    def be_interrupted(entry: object) -> None:
        if once.acquire(blocking=False):
            raise Interrupted
        finish(entry)  # type: ignore[arg-type]

    monkeypatch.setattr(group_commit._Entry, "finish", be_interrupted)  # noqa: SLF001 (as above)
    with Busy(group, table) as busy:
        calls = [busy.queue(new_batch(2)) for _ in range(3)]
    assert sum(isinstance(call.error, Interrupted) for call in calls) == 1
    for call in calls:
        assert call.ids is None or [table.rows[number] for number in call.ids] == call.batch.events
    assert len(table.rows) == 7
    group.append(table, new_batch())
    assert_at_rest(group)
