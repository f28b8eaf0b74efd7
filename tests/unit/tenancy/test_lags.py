"""How far a follower is behind, in events and in seconds."""

from __future__ import annotations

import pytest

from tenancy.runner.lags import Lag


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("tenancy.runner.lags.time.monotonic", lambda: now[0])
    return now


def test_seconds_count_from_the_first_event_that_is_not_processed(clock: list[float]) -> None:
    lag = Lag()
    assert lag.behind(0) == (0, 0.0)
    lag.saw(5, 0)
    clock[0] = 102.0
    lag.saw(5, 0)
    lag.saw(9, 0)
    clock[0] = 104.0
    assert lag.behind(0) == (9, 4.0)
    assert lag.behind(4) == (5, 4.0)
    assert lag.behind(5) == (4, 2.0)
    assert lag.behind(9) == (0, 0.0)
    assert lag.behind(12) == (0, 0.0)  # it has read events that the sweep has not seen


def test_a_follower_that_catches_up_starts_again(clock: list[float]) -> None:
    lag = Lag()
    lag.saw(5, 0)
    clock[0] = 110.0
    lag.saw(5, 5)
    clock[0] = 120.0
    lag.saw(6, 5)
    clock[0] = 121.0
    assert lag.behind(5) == (1, 1.0)


def test_memory_is_bounded_and_the_oldest_time_is_kept(clock: list[float]) -> None:
    lag = Lag()
    for number in range(1000):
        clock[0] = 100.0 + number
        lag.saw(number + 1, 0)
    assert lag.behind(0) == (1000, 999.0)
    assert len({lag.behind(reached)[1] for reached in range(1000)}) <= 32  # one for each time that is kept
