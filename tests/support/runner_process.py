"""A runner of the training school's fleet in a separate process, to be killed, paused, continued and drained.

It prints its owner after the start. SIGTERM ends it, with 0 if all slices were finished.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Self

from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.fleets import fleet, fleet_across


class RunnerProcess:
    """The process. Leaving the block kills it."""

    def __init__(self, url: str, lease_seconds: float = 2.0, *, across: bool = False) -> None:
        program = [sys.executable, "-m", "tests.support.runner_process"]
        command = [*program, url, str(lease_seconds), *(["across"] if across else [])]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
        self.owner = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def wait_until_it_works(self) -> None:
        """Wait until the runner has started."""
        assert self._process.stdout is not None
        self.owner = self._process.stdout.readline().strip()
        assert self.owner, "the process has died"

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait_for_end(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Wait for the process to end; return its exit code."""
        return self._process.wait(seconds)


def main(url: str, lease_seconds: str, across: str = "") -> int:
    """Run until SIGTERM."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with (fleet_across if across else fleet)(url) as tenants:
        runner = tenants.runner(workers=2, lease_seconds=float(lease_seconds))
        runner.start()
        print(runner.owner, flush=True)  # noqa: T201 (the parent process reads it)
        stopping.wait()
        return 0 if runner.stop(timeout=60) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
