"""Sample a number while something runs, or wait until it has the expected value."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

SAMPLE_SECONDS = 0.005
POLL_SECONDS = 0.01
SETTLE_SECONDS = 10.0


class Peak:
    """The highest sampled value."""

    value = 0


@contextmanager
def peak_of(count: Callable[[], int]) -> Iterator[Peak]:
    """Call `count` repeatedly in another thread, and once more at the end; yield the highest result."""
    peak = Peak()
    is_over = Event()

    def sample() -> None:
        is_last = False
        while not is_last:
            is_last = is_over.wait(SAMPLE_SECONDS)
            peak.value = max(peak.value, count())

    with ThreadPoolExecutor(1, "demo-sampler") as thread:
        sampling = thread.submit(sample)
        try:
            yield peak
        finally:
            is_over.set()
        sampling.result()


def settled(count: Callable[[], int], wanted: int = 0) -> int:
    """Call `count` until it returns `wanted`, for SETTLE_SECONDS at most; return its last result."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (actual := count()) != wanted and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return actual


def together(works: Sequence[Callable[[], None]]) -> None:
    """Run all functions concurrently, each in its own thread; raise the first error."""
    with ThreadPoolExecutor(len(works), "demo-worker") as threads:
        done = [threads.submit(work) for work in works]
    for future in done:
        future.result()
