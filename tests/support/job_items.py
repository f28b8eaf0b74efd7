"""An item of a job, for operations that are run without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Item:
    """Keeps its progress in memory. ``on_check`` and ``on_save`` are called at each call, and may raise."""

    def __init__(
        self,
        on_check: Callable[[], object] = lambda: None,
        on_save: Callable[[Mapping[str, Any]], object] = lambda _: None,
    ) -> None:
        self.progress: Mapping[str, Any] = {}
        self._on_check = on_check
        self._on_save = on_save

    def save_progress(self, progress: Mapping[str, Any]) -> None:
        self.progress = dict(progress)
        self._on_save(progress)

    def check(self) -> None:
        self._on_check()
