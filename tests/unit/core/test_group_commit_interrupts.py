"""An interrupt, or a finalizer that appends, between any two steps of an append affects no other call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from eventsourcing_sqlalchemy import group_commit
from eventsourcing_sqlalchemy.group_commit import GroupCommit
from tests.support.stepping import Stepping
from tests.support.table_in_memory import Busy, Call, Interrupted, Table, assert_at_rest, new_batch

# The position of the disturbed thread in the queue, or an idle group.
ROLES = ("alone", "first", "second", "only")


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the time that a lost wake-up costs."""
    monkeypatch.setattr(group_commit, "_LOST_WAKE_UP", 0.005)


def play(role: str, group: GroupCommit, table: Table, stepping: Stepping) -> tuple[Call, list[Call]]:
    """Append in several threads; return the disturbed call, and the others."""
    if role == "alone":
        call = Call(group, table, new_batch(2), stepping.begin)
        call.end()
        return call, []
    before, after = {"first": (0, 2), "second": (1, 1), "only": (0, 0)}[role]
    with Busy(group, table) as busy:
        for _ in range(before):
            busy.queue(new_batch())
        call = busy.queue(new_batch(2), stepping.begin)
        for _ in range(after):
            busy.queue(new_batch())
    return call, [other for other in busy.calls if other is not call]


def every_step(role: str, action: Callable[[GroupCommit, Table], None]) -> Iterator[tuple[GroupCommit, Table, Call]]:
    """Disturb a call at each step in turn, each time in a new group."""
    for number in count():
        group, table = GroupCommit(), Table()
        stepping = Stepping(group_commit.__file__, number, lambda: action(group, table))  # noqa: B023 (used in this round)
        call, others = play(role, group, table, stepping)
        for other in others:
            assert other.ids is not None, f"moment {number}: {other.error!r}"
            assert [table.rows[place] for place in other.ids] == other.batch.events, f"moment {number}"
        if not stepping.happened:
            assert number >= 5
            return
        yield group, table, call


def be_interrupted(_: GroupCommit, __: Table) -> None:
    raise Interrupted


@pytest.mark.parametrize("role", ROLES)
def test_interrupt_at_any_step_affects_no_other_call_and_leaves_nothing_behind(role: str) -> None:
    for number, (group, table, call) in enumerate(every_step(role, be_interrupted)):
        assert isinstance(call.error, Interrupted), f"moment {number}"
        written = [event for event in table.rows if event in call.batch.events]
        assert written in ([], call.batch.events), f"moment {number}"
        next_batch = new_batch()
        group.append(table, next_batch)
        # An abandoned append is not written later, when its caller may have retried it.
        assert table.rows[-1:] == next_batch.events, f"moment {number}"
        assert [event for event in table.rows if event in call.batch.events] == written, f"moment {number}"
        assert_at_rest(group)


@pytest.mark.parametrize("role", ROLES)
def test_append_by_a_finalizer_at_any_step_of_another_append_is_written(role: str) -> None:
    appended: list[list[int]] = []

    def append(group: GroupCommit, table: Table) -> None:
        appended.append(group.append(table, new_batch()))

    for number, (group, table, call) in enumerate(every_step(role, append)):
        assert call.ids is not None, f"moment {number}"
        assert [table.rows[place] for place in call.ids] == call.batch.events, f"moment {number}"
        assert len(appended) == number + 1
        assert_at_rest(group)
