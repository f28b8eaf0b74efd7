"""The command that runs or resumes a job as a process, to be killed, stopped and interrupted with its executors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from tempfile import TemporaryFile
from typing import Any, Self

import psutil

from tests.support.deadlines import DEADLINE_SECONDS

APP = "tests.samples.counting_job:tenants"
KIND = "tests.samples.counting_job:Count"


class JobProcess:
    """The process. Leaving the block kills it and its executors."""

    def __init__(self, url: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "tenancy", "--app", APP, "jobs", *arguments, "--json"]
        self._errors = TemporaryFile()  # noqa: SIM115 (open as long as the process)
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "SQLALCHEMY_URL": url},
            start_new_session=True,
        )

    @classmethod
    def run(cls, url: str, parameters: Mapping[str, Any], *arguments: str) -> Self:
        """Start a job."""
        return cls(url, "run", KIND, "--parameters", json.dumps(parameters), *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Executors are of the same session.
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self._process.pid:
                    process.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        self._process.communicate()
        self._errors.close()

    @property
    def errors(self) -> str:
        """What the command and its executors have written to standard error."""
        return os.pread(self._errors.fileno(), 1_000_000, 0).decode()

    def executors(self) -> list[psutil.Process]:
        """Return the living executors."""
        try:
            found = psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return []
        return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command, not to its executors."""
        self._process.send_signal(number)

    @property
    def has_ended(self) -> bool:
        """Whether the command has ended."""
        return self._process.poll() is not None

    def wait_for_end(self, seconds: float = 2 * DEADLINE_SECONDS) -> int:
        """Wait for the command to end; return its exit code."""
        self._process.communicate(timeout=seconds)
        return self._process.returncode
