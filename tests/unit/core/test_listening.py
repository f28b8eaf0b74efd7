"""Pauses of the listener thread before it reconnects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from eventsourcing_sqlalchemy import background
from eventsourcing_sqlalchemy.notifications.listener import ListenThread

FIRST, MOST = 0.1, 5.0


class Closable:
    def close(self) -> None:
        """Do nothing."""


class Breaking(ListenThread):
    """Its connections break after a time on its own clock. It notes its pauses, and ends after some of them."""

    now = 0.0

    def __init__(self, lives: list[float]) -> None:
        nothing: Any = None
        super().__init__(nothing, nothing)
        self.lives = lives
        self.pauses: list[float] = []
        self._connection = Closable()
        self._stopping.wait = self._pause  # type: ignore[method-assign]

    def _pause(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        if len(self.pauses) == len(self.lives):
            self._stopping.set()
        return self._stopping.is_set()

    def _connect(self) -> Any:
        return self

    def _listen(self, _: Any) -> None:
        Breaking.now += self.lives[len(self.pauses)]
        raise ConnectionError


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "time", SimpleNamespace(monotonic=lambda: Breaking.now))


def test_pauses_grow_while_connections_break_at_once() -> None:
    thread = Breaking([0.0] * 8)
    thread.run()
    assert thread.pauses[0] == FIRST
    assert thread.pauses == sorted(thread.pauses)
    assert thread.pauses[-1] == MOST


def test_pause_is_short_again_after_a_connection_that_held() -> None:
    thread = Breaking([0.0, 0.0, 0.0, 2 * MOST, 2 * MOST])
    thread.run()
    assert thread.pauses[3:] == [FIRST, FIRST]
