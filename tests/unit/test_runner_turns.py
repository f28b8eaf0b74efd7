"""A turn of a follower, without a database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from tenancy.runner.following import Page
from tenancy.runner.turns import _Turn


def test_turn_goes_on_when_the_keeper_forgets_the_position_meanwhile() -> None:
    """As it does when somebody has told a follower to try again, or to skip, while it has a turn."""
    course: Any = SimpleNamespace(position=3, recorded=3, doubt=None, is_to_be_compared=False)

    def pages(start: int) -> Iterator[Page]:
        yield Page([], start + 2, is_last=False)
        course.position = None

    following: Any = SimpleNamespace(topics=(), pages=pages)
    turn = _Turn(course, 10, time.monotonic() + 60, lambda _: True)
    assert turn.take(following)
    assert (turn.came_to_end, course.position) == (True, 5)
