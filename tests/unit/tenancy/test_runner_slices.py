"""A slice of a follower, without a database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from tenancy.following.follower import Page
from tenancy.runner.worker import _Slice


def test_slice_continues_when_the_coordinator_resets_the_position() -> None:
    """The coordinator does so when an operator retries or skips during the slice."""
    assignment: Any = SimpleNamespace(position=3, recorded=3, pending_gap=None, is_comparison_due=False)

    def pages(start: int) -> Iterator[Page]:
        yield Page([], start + 2, is_last=False)
        assignment.position = None

    driver: Any = SimpleNamespace(topics=(), pages=pages)
    slice_ = _Slice(assignment, 10, time.monotonic() + 60, lambda _: True)
    assert slice_.take(driver)
    assert (slice_.reached_end, assignment.position) == (True, 5)
