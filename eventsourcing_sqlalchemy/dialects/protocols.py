"""The parts that a dialect hands out: what runs SQL, what writes events, what receives wake-ups, what counts ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from eventsourcing.persistence import PersistenceError, StoredEvent, Tracking

from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.options import EngineSettings

__all__ = [
    "Batch",
    "EventWriter",
    "Executor",
    "IdSequences",
    "Listener",
    "PendingGap",
    "RelationKind",
    "Right",
    "SequenceBehind",
]

RelationKind = Literal["table", "foreign table", "view", "materialized view", "sequence"]
"""What SQL calls a thing that can be dropped."""

PendingGap = Literal["low", "taken"]
"""What may be wrong with ids that a sequence gave out: they are not above the last one, or another event has them."""

Right = Literal["create", "read", "write"]
"""What a role may do: make schemas and tables, read events, record them."""


class Executor(Protocol):
    """Runs SQL, either on a cursor of our own or on the connection of a session that the user opened."""

    def fetch(self, statement: str, parameters: Sequence[Any] = (), *, prepare: bool = True) -> Sequence[Sequence[Any]]:
        """Run a statement and return all its rows, if it has any; cast a parameter whose type nothing else tells.

        Without ``prepare``, the server plans it each time, for the parameters that it has then.
        """

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""

    def run_script(self, statements: Sequence[str]) -> None:
        """Run several statements, without parameters and results, in one transaction."""


@dataclass(slots=True)
class Batch:
    """What one call writes, checked, and packed as it is sent."""

    events: Sequence[StoredEvent]
    tracking: Tracking | None
    size: int
    """How many bytes the states have together."""
    needs_transaction: bool
    """Whether it takes more than one statement, so that the caller must begin and commit around it."""
    can_join: bool
    """Whether it can be written in one statement with others."""
    columns: tuple[Any, ...] = ()
    """The values, in a form that only its writer knows."""


class EventWriter(ABC):
    """Writes to the tables of one recorder; its statements are rendered once."""

    @abstractmethod
    def pack(self, events: Sequence[StoredEvent], tracking: Tracking | None) -> Batch:
        """Return a batch; raises DataError for a value that cannot be stored as it is."""

    @abstractmethod
    def join(self, batches: Sequence[Batch]) -> Batch:
        """Return one batch of the events of several without tracking, in their order."""

    @abstractmethod
    def write(self, executor: Executor, batch: Batch, last_id: int | None = None) -> list[int]:
        """Write events, and move a tracking position forward, at once; return the ids in the order of the events.

        Takes the writer lock of the table and holds it until the transaction ends, so that ids become visible in their
        order. Tracking is written before the lock is taken. Raises IntegrityError when the tracking position is not
        ahead of the recorded one.

        An error that :func:`doubt` knows is raised, and nothing is written, unless the ids are above ``last_id``, or
        above all in the table when that is None.
        """

    def doubt(self, error: PersistenceError) -> PendingGap | None:
        """Return what an error of :func:`write` says of the ids; looks at memory only."""
        return None

    def find_sequence_behind(self, executor: Executor, error: PersistenceError) -> str | None:
        """Return the name of the sequence that is the cause of an error with a :func:`doubt`, empty when that is not
        known; None when there is another cause.
        """
        return None


class Listener(Protocol):
    """A connection that hears the wake-ups of other processes."""

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when there is something to hear."""

    def receive(self) -> list[str]:
        """Return the payloads that have arrived, without waiting; raises an error of the driver when the connection
        is dead.
        """


@dataclass(frozen=True, slots=True)
class SequenceBehind:
    """A counter whose next id is not above the last one in its table."""

    table: TableName
    name: str
    """As SQL writes it."""
    next_id: int
    last_id: int


class IdSequences(ABC):
    """The counters of one kind of database. One is never behind the ids that can be read, and may be ahead of them: for
    transactions that have not ended, and for ever after those that were rolled back.
    """

    epoch_seconds: ClassVar[str]
    """The expression for the database's clock, as of now: seconds since 1970, a float."""

    @abstractmethod
    def find(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, Any]:
        """Return what counts the ids of those tables that have such a thing: what :func:`read` takes."""

    @abstractmethod
    def read(self, executor: Executor, id_sequences: Sequence[Any]) -> dict[Any, int]:
        """Return the last id that each counter has given out, 0 for none yet, without counters that are gone."""

    @abstractmethod
    def behind(self, executor: Executor, tables: Sequence[TableName]) -> list[SequenceBehind]:
        """Return the counters of these tables that are behind; without tables that do not exist or may not be read."""

    @abstractmethod
    def advance(self, executor: Executor, counter: SequenceBehind, settings: EngineSettings) -> None:
        """Move a counter to the last id of its table unless it is there by now; never moves one back. Waits for those
        who write to the table.
        """

    def transaction_horizon(self, executor: Executor) -> tuple[int, int] | None:
        """Return numbers of transactions: of the first that has not ended, and one larger than those of all that have
        written; None where a counter is never ahead.

        What a counter was ahead for has ended, one way or another, when the first number of a later call is no less
        than the second number of this one.
        """
        return None
