"""Check that all collections keep growing."""

from __future__ import annotations

import threading
from collections.abc import Sequence, Sized


class Growth:
    """A condition: each collection has grown since construction, or none can grow any more."""

    def __init__(self, collections: Sequence[Sized], is_over: threading.Event) -> None:
        self._collections = collections
        self._before = [len(collection) for collection in collections]
        self._is_over = is_over

    def __call__(self) -> bool:
        grown = (len(now) > before for now, before in zip(self._collections, self._before, strict=True))
        return self._is_over.is_set() or all(grown)
