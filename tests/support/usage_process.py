"""A process that rolls up the usage of a fleet of kennels until it is killed.

It prints a line after each rollup.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Self

from tenancy import Tenancy
from tests.samples.kennels import Kennel


class UsageProcess:
    """The process. Leaving the block kills it."""

    def __init__(self, url: str) -> None:
        program = [sys.executable, "-m", "tests.support.usage_process", url]
        self._process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env={**os.environ})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._process.communicate()

    def wait_for_rollups(self, number: int) -> None:
        """Wait until the process has rolled up so many times more."""
        assert self._process.stdout is not None
        for _ in range(number):
            assert self._process.stdout.readline(), "the process has died"

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()


def main(url: str) -> None:
    """Roll up without a pause."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as tenants:
        while True:
            tenants.usages()
            print("rolled up", flush=True)  # noqa: T201 (the parent process reads it)


if __name__ == "__main__":
    main(sys.argv[1])
