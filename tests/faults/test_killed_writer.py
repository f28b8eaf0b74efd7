"""A writing process is killed repeatedly: every acknowledged event is stored once."""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from eventsourcing.persistence import Notification

from tests.support.administrator import Database
from tests.support.applications import Applications
from tests.support.deadlines import wait_until
from tests.support.writing_process import NAME, SOURCE, Acknowledgement, WritingProcesses, WritingTask

TARGETS = ["psycopg2", "psycopg2 in rows", "psycopg", "pg8000", "sqlite"]


@pytest.fixture(scope="module")
def processes() -> Iterator[WritingProcesses]:
    """The starter of the processes."""
    with WritingProcesses() as processes:
        yield processes


@pytest.fixture(params=TARGETS)
def task(request: pytest.FixtureRequest, place: str, tmp_path: Path) -> WritingTask:
    """The task of a process."""
    driver, _, form = request.param.partition(" ")
    if driver == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        database: Database = request.getfixturevalue("database")
        url = database.url(driver)
    return WritingTask(url=url, place=place, log=str(tmp_path / "log"), in_rows=bool(form))


def faults(
    acknowledged: Sequence[Acknowledgement], stored: Sequence[Notification], position: int | None, kills: int
) -> list[str]:
    """Return the faults in the stored events, given the acknowledgements and the number of killed processes."""
    found = []
    by_id = {notification.id: notification for notification in stored}
    for acknowledgement in acknowledged:
        for version, number in enumerate(acknowledgement.ids, start=1):
            notification = by_id.get(number)
            if notification is None or (notification.originator_id, notification.originator_version) != (
                UUID(acknowledgement.originator_id),
                version,
            ):
                found.append(f"lost: event {version} of call {acknowledgement.call}, id {number}")
    calls = [list(group) for _, group in itertools.groupby(stored, lambda notification: notification.originator_id)]
    numbers = [int(call[0].state) for call in calls]
    found += [f"twice: call {number}" for number in set(numbers) if numbers.count(number) > 1]
    for call in calls:
        count = int(call[0].topic.split()[0])
        if [notification.originator_version for notification in call] != list(range(1, count + 1)):
            found.append(f"half: call {int(call[0].state)}")
    # A process may be killed after its call was recorded and before it was logged.
    unnoted = set(numbers) - {acknowledgement.call for acknowledgement in acknowledged}
    if len(unnoted) > kills:
        found.append(f"not noted: {unnoted}")
    tracked = max((number for number in numbers if number % 3 == 1), default=None)
    if position != tracked:
        found.append(f"tracking is at {position}, the events at {tracked}")
    return found


def read(task: WritingTask) -> tuple[list[Notification], int | None]:
    with Applications(task.url) as applications:
        recorder = applications.recorder(NAME, task.place)
        return recorder.select_notifications(None, 10**6), recorder.max_tracking_id(SOURCE)


def test_killed_process_loses_and_duplicates_nothing(
    processes: WritingProcesses, task: WritingTask, repeat: Callable[[int], range]
) -> None:
    log, chance = Path(task.log), random.Random(7)  # noqa: S311 (chance for a test)
    rounds = repeat(6)
    for _ in rounds:
        before, more = len(Acknowledgement.read_all(log)), chance.randrange(1, 25)
        status = processes.run_until(
            task,
            lambda enough=before + more: wait_until(  # type: ignore[misc] # (mypy cannot type defaults of lambdas)
                lambda: len(Acknowledgement.read_all(log)) >= enough, "the process writes"
            ),
        )
        assert status == -signal.SIGKILL
    acknowledged = Acknowledgement.read_all(log)
    assert len(acknowledged) > len(rounds)
    stored, position = read(task)
    assert faults(acknowledged, stored, position, len(rounds)) == []
    # The same check detects faults.
    lacking = [notification for notification in stored if notification.id != acknowledged[-1].ids[0]]
    assert faults(acknowledged, lacking, position, len(rounds))
    assert faults(acknowledged, [*stored, stored[0]], position, len(rounds))


@pytest.mark.parametrize("task", ["psycopg2", "sqlite"], indirect=True)
def test_call_logged_before_its_commit_is_detected(processes: WritingProcesses, task: WritingTask) -> None:
    task = WritingTask(url=task.url, place=task.place, log=task.log, notes_too_early=True)
    log = Path(task.log)
    processes.run_until(task, lambda: wait_until(lambda: bool(Acknowledgement.read_all(log)), "the process writes"))
    acknowledged = Acknowledgement.read_all(log)
    assert [fault.split(":")[0] for fault in faults(acknowledged, *read(task), kills=1)] == ["lost", "lost"]
