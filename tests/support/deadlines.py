"""Wait for conditions and threads, with a deadline."""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Ends a test that hangs. Far longer than any test waits, even on a busy machine, and shorter than the 60 s after which
# subscriptions poll in tests of wake-ups.
DEADLINE_SECONDS = 45.0

_T = TypeVar("_T")


def wait_until(
    condition: Callable[[], bool],
    what: str,
    seconds: float = DEADLINE_SECONDS,
    *,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Poll until the condition holds; fail after the deadline, which is renewed while the result of ``progress``
    changes: a busy machine may take long, but it does not stand still.
    """
    deadline, before = time.monotonic() + seconds, progress()
    while not condition():
        if time.monotonic() > deadline:
            now = progress()
            assert now != before, f"not in time: {what}"
            deadline, before = time.monotonic() + seconds, now
        time.sleep(0.01)


def run_together(calls: Iterable[Callable[[], _T]], seconds: float = DEADLINE_SECONDS) -> list[_T]:
    """Call each in its own thread, all concurrently; return the results or raise the first error."""
    calls = list(calls)
    barrier = threading.Barrier(len(calls))

    def begin(call: Callable[[], _T]) -> _T:
        barrier.wait(seconds)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result(seconds) for future in [threads.submit(begin, call) for call in calls]]
