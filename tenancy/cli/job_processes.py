"""The processes that execute a job for a command, and the signals that stop them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["ExecutorProcesses", "interruptible", "run_check"]

# Seconds between two looks at the command of a check.
_POLL: Final = 0.1
_STANDARD_ERROR: Final = 2


class ExecutorProcesses:
    """Processes that execute a job. They end when the job does, when :meth:`stop` is called, and when this one dies."""

    def __init__(self, arguments: Sequence[str], number: int) -> None:
        self._command = [sys.executable, "-m", "tenancy", *arguments]
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_own_paths())}
        self._number = number
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_stopping = False
        self._replaces_killed = True

    def __enter__(self) -> Self:
        self._processes = [self._start() for _ in range(self._number)]
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        for process in self._processes:
            process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        # The pipe ends when this process dies, however it does: the signal for them to stop.
        return subprocess.Popen(self._command, stdin=subprocess.PIPE, env=self._environment)

    @property
    def are_alive(self) -> bool:
        """Whether any of them is still running, or was killed and is to be replaced."""
        codes = [process.poll() for process in self._processes]
        return any(code is None or (code < 0 and self._replaces_killed) for code in codes)

    def replace_killed(self) -> None:
        """Start another process for each that was killed. One that has ended with an error would do so again."""
        self._processes = [self._start() if (process.poll() or 0) < 0 else process for process in self._processes]

    def end_replacing(self) -> None:
        """Replace no process that is killed from now on: the job has ended, or is to stop."""
        self._replaces_killed = False

    def stop(self) -> None:
        """Let each finish its tenant, for as long as it was told to wait."""
        self.end_replacing()
        if not self._is_stopping:
            self._is_stopping = True
            for process in self._processes:
                assert process.stdin is not None
                process.stdin.close()


def _own_paths() -> list[str]:
    """Return where this process has found the user's code, for the executors to import the same.

    Without the interpreter's own directories, because programs that executors start may use another Python.
    """
    installed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths = [Path(path) for path in sys.path if path]
    return [str(path) for path in paths if path.exists() and not any(map(path.is_relative_to, installed))]


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets; the second one ends the process at once."""
    interrupted = threading.Event()

    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        interrupted.set()

    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_check(command: str, interrupted: threading.Event) -> int | None:
    """Run a shell command and return its exit code, or None if it was interrupted. Its output is not ours."""
    with subprocess.Popen(command, shell=True, stdin=subprocess.DEVNULL, stdout=_STANDARD_ERROR) as process:  # noqa: S602 (the operator's command)
        while process.poll() is None:
            if interrupted.wait(_POLL):
                process.terminate()
                return None
        return process.returncode
