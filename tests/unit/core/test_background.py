"""Loops of background threads survive every error, and log a failure once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from eventsourcing_sqlalchemy.background import Activity, keep_running

logger = logging.getLogger("tests.background")


class Pauses(threading.Event):
    """Notes the pauses, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.taken.append(timeout)
        msg = "the clock was set"
        raise OSError(msg)  # a pause may fail too


def steps(*outcomes: BaseException | bool) -> Callable[[], bool]:
    """Return a step that raises or returns these in turn."""
    remaining = list(outcomes)

    def step() -> bool:
        outcome = remaining.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return step


def test_whatever_is_raised_is_followed_by_a_growing_pause() -> None:
    errors = [OSError(), SystemExit(), MemoryError(), *(ValueError() for _ in range(5))]
    pauses = Pauses()
    keep_running(Activity("loop", "It fails", logger), steps(*errors, True, OSError(), False), pauses)
    assert pauses.taken == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 0.1]


def test_loop_that_is_to_stop_is_not_kept_running() -> None:
    pauses = Pauses()
    pauses.set()
    keep_running(Activity("loop", "It fails", logger), steps(OSError()), pauses)
    assert pauses.taken == []


def test_error_is_logged_once_and_without_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    activity = Activity("loop", "It fails", logger)
    for error in (OSError("secret"), OSError("secret"), ValueError("secret")):
        activity.failed(error)
    assert activity.error == "ValueError"
    activity.works()
    activity.works()
    assert activity.error is None
    activity.failed(ValueError())
    assert [record.getMessage() for record in caplog.records] == [
        "It fails: OSError. Retrying",
        "It fails: ValueError. Retrying",
        "The loop works again",
        "It fails: ValueError. Retrying",
    ]
