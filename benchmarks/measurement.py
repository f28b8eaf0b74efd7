"""Measure durations.

With one thread, only the time of the calls counts, because creating and verifying events is not the contestant's work.
With several threads, wall-clock time counts, and events are created beforehand.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

WARM_UP: Final = 10
"""Unmeasured first calls of each thread, which connect and prepare."""
MAX_RATE: Final = 40_000
"""Events created beforehand per second of appending; further ones are created during the measurement."""

_WALL_FACTOR = 5.0  # Limits a measurement's wall-clock time to this multiple of its seconds of calls.


class WorkNotDoneError(Exception):
    """The measured work was not done, or not correctly: the measurement is invalid."""


def require(holds: bool, otherwise: str) -> None:
    """Raise WorkNotDoneError with the text unless the condition holds."""
    if not holds:
        raise WorkNotDoneError(otherwise)


@dataclass(slots=True)
class Measurement:
    """An amount of work and its duration; `latencies` are those of the calls, in seconds."""

    work: int
    seconds: float
    latencies: list[float]
    extra: dict[str, float] = field(default_factory=dict)
    note: str = ""

    def value(self, *, rate: bool) -> float:
        """Return the work per second, or the milliseconds per work."""
        return self.work / self.seconds if rate else 1000 * self.seconds / self.work

    def quantile(self, q: float) -> float | None:
        """Return a quantile of the latencies in milliseconds (nearest rank), or None without latencies."""
        return quantile(self.latencies, q)


def quantile(latencies: Iterable[float], q: float) -> float | None:
    """Return a quantile of latencies in seconds as milliseconds (nearest rank), or None without latencies."""
    ordered = sorted(latencies)
    return 1000 * ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else None


def settle() -> None:
    """Exclude existing objects from later garbage collections."""
    gc.collect()
    gc.freeze()


def measure_calls(
    seconds: float,
    make: Callable[[], _Item],
    call: Callable[[_Item], _Result],
    check: Callable[[_Item, _Result], int],
    *,
    warm_up: int = WARM_UP,
    at_most: int | None = None,
) -> Measurement:
    """Repeat a call until the calls have taken `seconds` in total.

    `check` returns the amount of work of a call, and raises WorkNotDoneError for a wrong result. The first `warm_up`
    calls are not measured.
    """
    for _ in range(warm_up):
        item = make()
        check(item, call(item))
    settle()
    latencies: list[float] = []
    work, total = 0, 0.0
    clock = time.perf_counter
    wall = clock() + _WALL_FACTOR * seconds
    while not latencies or (total < seconds and clock() < wall and (at_most is None or len(latencies) < at_most)):
        item = make()
        start = clock()
        result = call(item)
        latency = clock() - start
        total += latency
        latencies.append(latency)
        work += check(item, result)
    return Measurement(work, total, latencies)


def measure_threads(seconds: float, bodies: Iterable[Callable[[Callable[[], bool]], list[float]]]) -> Measurement:
    """Run each body in its own thread, all starting at the same moment.

    A body gets a function, continues while that returns True, and returns its latencies. The first call of the function
    ends the body's warm-up.
    """
    runners = list(bodies)
    results: list[list[float]] = [[] for _ in runners]
    errors: list[BaseException] = []
    deadline = 0.0
    started = 0.0

    def begin() -> None:
        nonlocal deadline, started
        settle()
        started = time.perf_counter()
        deadline = started + seconds

    barrier = threading.Barrier(len(runners), action=begin)

    def run(number: int, body: Callable[[Callable[[], bool]], list[float]]) -> None:
        has_begun = False

        def goes_on() -> bool:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                barrier.wait()
                return True  # Each thread makes at least one call, even if it starts late.
            return time.perf_counter() < deadline

        try:
            results[number] = body(goes_on)
        except BaseException as error:  # noqa: BLE001 (re-raised below, in the waiting thread)
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=arguments) for arguments in enumerate(runners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = time.perf_counter()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    latencies = [latency for result in results for latency in result]
    return Measurement(len(latencies), ended - started, latencies)
