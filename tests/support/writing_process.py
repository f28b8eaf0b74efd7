"""Processes that record events until they are killed, and log each call that returned.

As a program, it reads one task per line from standard input and forks a process for each, one after another, because
importing is slow. It answers each task with the process id, and then with the exit status.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from eventsourcing.persistence import StoredEvent, Tracking

from eventsourcing_sqlalchemy.dialects.postgresql import writer as postgresql_writer
from tests.support.applications import Applications, stored_events

SOURCE = "upstream"
NAME = "Shop"


@dataclass(frozen=True, kw_only=True)
class WritingTask:
    """Where to write and where to log; `notes_too_early` logs before the commit, which a test must detect."""

    url: str
    place: str
    log: str
    in_rows: bool = False
    notes_too_early: bool = False


@dataclass(frozen=True)
class Acknowledgement:
    """A call that returned."""

    call: int
    originator_id: str
    ids: tuple[int, ...]

    def __str__(self) -> str:
        return " ".join(map(str, (self.call, self.originator_id, *self.ids)))

    @classmethod
    def read_all(cls, log: Path) -> list[Self]:
        """Return the calls in a log; an incomplete line does not count."""
        lines = log.read_text().split("\n")[:-1] if log.exists() else []
        return [
            cls(int(call), originator_id, tuple(map(int, ids)))
            for call, originator_id, *ids in (line.split() for line in lines)
        ]


def write(task: WritingTask) -> None:
    """Record one to three events at a time: alternately with tracking, without, and in a transaction."""
    if task.in_rows:
        postgresql_writer.MAX_ARRAY_BYTES = 1
    log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(call: int, events: Sequence[StoredEvent], ids: Sequence[int] | None) -> None:
        os.write(log, f"{Acknowledgement(call, str(events[0].originator_id), tuple(ids or ()))}\n".encode())

    with Applications(task.url) as applications:
        recorder = applications.recorder(NAME, task.place)
        call = max((int(notification.state) for notification in recorder.select_notifications(None, 10**6)), default=0)
        while True:
            call += 1
            # The events contain the number of the call and of its events, for the check.
            events = stored_events(1 + call % 3, state=b"%d" % call, topic=f"{1 + call % 3} events")
            if task.notes_too_early:
                with recorder.transaction():
                    note(call, events, recorder.insert_events(events))
                    signal.pause()
            elif call % 3 == 0:
                with recorder.transaction():
                    ids = recorder.insert_events(events)
                note(call, events, ids)
            elif call % 3 == 1:
                note(call, events, recorder.insert_events(events, tracking=Tracking(SOURCE, call)))
            else:
                note(call, events, recorder.insert_events(events))


class WritingProcesses:
    """Starts and kills writing processes."""

    def __init__(self) -> None:
        self._starter: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._starter = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._starter is not None
        self._starter.communicate()

    def run_until(self, task: WritingTask, condition: Callable[[], None]) -> int:
        """Start a process, kill it when `condition` returns, and return its exit status."""
        pid = int(self._ask(json.dumps(asdict(task))))
        try:
            condition()
        finally:
            os.kill(pid, signal.SIGKILL)
            status = int(self._ask(""))
        return status

    def _ask(self, line: str) -> str:
        starter = self._starter
        assert starter is not None
        assert starter.stdin is not None
        assert starter.stdout is not None
        starter.stdin.write(f"{line}\n")
        starter.stdin.flush()
        return starter.stdout.readline()


def main() -> None:
    """Start a process for each task."""
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            try:
                write(WritingTask(**json.loads(line)))
            except BaseException:  # noqa: BLE001 (the process ends here)
                traceback.print_exc()
                os._exit(1)
        print(pid, flush=True)  # noqa: T201 (read by the parent)
        sys.stdin.readline()  # Until it is waited for, it is a zombie, and its id is not reused.
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)  # noqa: T201 (read by the parent)


if __name__ == "__main__":
    main()
