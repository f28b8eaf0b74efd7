"""What counts the ids of tables of events, without reading any of them, and the clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.dialects.base import Executor
    from eventsourcing_sqlalchemy.naming import TableName
    from eventsourcing_sqlalchemy.settings import EngineSettings

__all__ = ["CounterBehind", "Counters"]


@dataclass(frozen=True, slots=True)
class CounterBehind:
    """A counter whose next id is not above the last one in its table."""

    table: TableName
    name: str
    """As SQL writes it."""
    next_id: int
    last_id: int


class Counters(ABC):
    """The counters of one kind of database. One is never behind the ids that can be read, and may be ahead of them: for
    transactions that have not ended, and for ever after those that were rolled back.
    """

    epoch_seconds: ClassVar[str]
    """The expression for the database's clock, as of now: seconds since 1970, a float."""

    @abstractmethod
    def find(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, Any]:
        """Return what counts the ids of those tables that have such a thing: what :func:`read` takes."""

    @abstractmethod
    def read(self, executor: Executor, counters: Sequence[Any]) -> dict[Any, int]:
        """Return the last id that each counter has given out, 0 for none yet, without counters that are gone."""

    @abstractmethod
    def behind(self, executor: Executor, tables: Sequence[TableName]) -> list[CounterBehind]:
        """Return the counters of these tables that are behind; without tables that do not exist or may not be read."""

    @abstractmethod
    def advance(self, executor: Executor, counter: CounterBehind, settings: EngineSettings) -> None:
        """Move a counter to the last id of its table unless it is there by now; never moves one back. Waits for those
        who write to the table.
        """

    def horizon(self, executor: Executor) -> tuple[int, int] | None:
        """Return numbers of transactions: of the first that has not ended, and one larger than those of all that have
        written; None where a counter is never ahead.

        What a counter was ahead for has ended, one way or another, when the first number of a later call is no less
        than the second number of this one.
        """
        return None
