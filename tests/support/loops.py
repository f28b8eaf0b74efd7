"""A thread that repeats a call while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from tests.support.deadlines import DEADLINE_SECONDS, wait_until

__all__ = ["Loop"]


class Loop:
    """A thread that calls a function until the block ends, which raises the function's error."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.calls = 0
        self._call = call
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        self._thread.join(DEADLINE_SECONDS)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._call()
                self.calls += 1
        except BaseException as error:  # noqa: BLE001 (raised where the block ends)
            self._error = error

    def wait_for_calls(self, number: int) -> None:
        """Wait for some more calls."""
        wanted = self.calls + number
        wait_until(lambda: self.calls >= wanted or self._error is not None, f"{number} calls")
