"""What each database must provide to migrate tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.tables import TableSpec

__all__ = ["Step", "Steps"]

Step = Callable[[Executor, TableSpec], Sequence[str]]
"""Returns the statements that bring a table to the next version. It may read the catalog, and changes nothing."""


class Steps(ABC):
    """The steps of one database: the first leads from version 0 to version 1."""

    all: ClassVar[Sequence[Step]]

    @abstractmethod
    def begin(self, executor: Executor, dialect: Dialect, settings: EngineSettings, lock_timeout: float) -> None:
        """Begin a transaction in which a statement waits for a lock at most ``lock_timeout`` seconds."""
