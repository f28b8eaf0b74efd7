"""Registry writes that conflict with another process are retried a limited number of times."""

from __future__ import annotations

import pytest
from eventsourcing.persistence import IntegrityError

from tenancy.registry import database
from tenancy.registry.database import _retry_conflicts


class Conflicts:
    """A call that raises a number of conflicts."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        assert self.calls <= database._ATTEMPTS, "it is retried endlessly"  # noqa: SLF001
        if self._left:
            self._left -= 1
            raise IntegrityError(str(self.calls))


def test_recording_is_retried_until_it_does_not_conflict() -> None:
    record = Conflicts(3)
    _retry_conflicts(record)
    assert record.calls == 4


def test_endless_conflicts_raise_the_last_one() -> None:
    attempts = database._ATTEMPTS  # noqa: SLF001
    record = Conflicts(attempts + 1)
    with pytest.raises(IntegrityError, match=f"^{attempts}$"):
        _retry_conflicts(record)
