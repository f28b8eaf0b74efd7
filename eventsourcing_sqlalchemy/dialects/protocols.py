"""The parts of a dialect: SQL executors, event writers, wake-up listeners and id sequences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from eventsourcing.persistence import PersistenceError, StoredEvent, Tracking

from eventsourcing_sqlalchemy.engine_settings import EngineSettings, OriginatorIDType
from eventsourcing_sqlalchemy.naming import TableName

__all__ = [
    "Batch",
    "EventWriter",
    "Executor",
    "IdConflict",
    "IdSequences",
    "Listener",
    "RelationId",
    "RelationKind",
    "Right",
    "RowTransfer",
    "SequenceBehind",
    "TableReplacer",
]

RelationKind = Literal["table", "foreign table", "view", "materialized view", "sequence"]
"""The kind of a relation in a DROP statement."""


class RelationId(NamedTuple):
    """What tells a relation that a transaction has renamed from one that it has created."""

    number: int
    """Stays the same when the relation is renamed; 0 for a relation that cannot be renamed."""
    may_be_ours: bool
    """Whether the transaction may have created the relation; False if another one has."""


IdConflict = Literal["low", "taken"]
"""A fault of a generated id: it is not above the last id, or an existing event has it."""

Right = Literal["create", "read", "write"]
"""A privilege of a role: create schemas and tables, read events, write events."""


class Executor(Protocol):
    """Runs SQL, on a cursor of our own or on the connection of a user's session."""

    def fetch(self, statement: str, parameters: Sequence[Any] = (), *, prepare: bool = True) -> Sequence[Sequence[Any]]:
        """Run a statement and return its rows. Cast each parameter whose type the server cannot infer.

        Without ``prepare``, the server plans the statement each time, for the actual parameters.
        """

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""

    def run_script(self, statements: Sequence[str]) -> None:
        """Run several statements in one transaction, without parameters and results."""

    def load(self, statement: str, rows: bytes) -> None:
        """Run a statement that takes rows in the database's own bulk format, where it has one."""


@dataclass(slots=True)
class Batch:
    """One call's events and tracking position, validated and packed for sending."""

    events: Sequence[StoredEvent]
    tracking: Tracking | None
    size: int
    """Total size of the states in bytes."""
    needs_transaction: bool
    """Whether it takes several statements, so that the caller must begin and commit a transaction."""
    can_join: bool
    """Whether it can share a statement with other batches."""
    columns: tuple[Any, ...] = ()
    """The values, in the writer's own format."""


class EventWriter(ABC):
    """Writes to one recorder's tables. Renders its statements once."""

    @abstractmethod
    def pack(self, events: Sequence[StoredEvent], tracking: Tracking | None) -> Batch:
        """Return a batch; raises DataError for a value that cannot be stored unchanged."""

    @abstractmethod
    def join(self, batches: Sequence[Batch]) -> Batch:
        """Join batches without tracking into one, keeping the order of the events."""

    @abstractmethod
    def write(self, executor: Executor, batch: Batch, last_id: int | None = None) -> list[int]:
        """Write events and advance a tracking position atomically; return the ids in the order of the events.

        Holds the table's writer lock until the transaction ends, so that ids become visible in order. The tracking
        position is written before the lock is taken. Raises IntegrityError if it is not ahead of the recorded one.

        Unless all ids are above ``last_id``, or above all ids in the table if that is None, writes nothing and raises
        an error that :meth:`id_conflict` recognizes.
        """

    def id_conflict(self, error: PersistenceError) -> IdConflict | None:
        """Return the id conflict that an error of :meth:`write` indicates, or None. Needs no round trip."""
        return None

    def find_sequence_behind(self, executor: Executor, error: PersistenceError) -> str | None:
        """Return the sequence that caused an id conflict, "" if its name is unknown; None for another cause."""
        return None


class Listener(Protocol):
    """A connection that receives wake-ups from other processes."""

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when wake-ups arrive."""

    def receive(self) -> list[str]:
        """Return the payloads that have arrived, without waiting; raises a driver error if the connection is dead."""


@dataclass(frozen=True, slots=True)
class SequenceBehind:
    """A sequence whose next id is not above its table's last id."""

    table: TableName
    name: str
    """Quoted, as SQL."""
    next_id: int
    last_id: int


class IdSequences(ABC):
    """Accesses the sequences that generate event ids.

    A sequence is ahead of the visible ids during open transactions, and after rolled-back ones until the next commit.
    It is behind them only if rows were inserted without it.
    """

    epoch_seconds: ClassVar[str]
    """The SQL expression for the database's current time: seconds since 1970, a float."""

    @abstractmethod
    def find(self, executor: Executor, tables: Sequence[TableName]) -> dict[TableName, Any]:
        """Return the tables' sequences, in the form that :meth:`read` takes. Tables without one are skipped."""

    @abstractmethod
    def read(self, executor: Executor, id_sequences: Sequence[Any]) -> dict[Any, int]:
        """Return the last id that each sequence has generated, 0 for none. Dropped sequences are skipped."""

    @abstractmethod
    def behind(self, executor: Executor, tables: Sequence[TableName]) -> list[SequenceBehind]:
        """Return the tables' sequences that are behind. Missing and unreadable tables are skipped."""

    @abstractmethod
    def advance(self, executor: Executor, behind: SequenceBehind, settings: EngineSettings) -> None:
        """Advance a sequence to its table's last id; never moves it back. Waits for the table's writers."""

    def transaction_horizon(self, executor: Executor) -> tuple[int, int] | None:
        """Return two transaction ids: the oldest open one, and an upper bound of all that have written.

        Transactions that had generated ids before this call have all ended once the first number of a later call
        reaches this call's second number. None if sequences are never ahead of visible ids.
        """
        return None


class TableReplacer(ABC):
    """Replaces tables with others of the same names, which were filled beside them.

    The others are in a space: a schema of their own, or where the database has no schemas, names with a prefix. A space
    holds nothing else. All methods run in the caller's transaction.
    """

    @abstractmethod
    def settings_of(self, space: str, schema: str | None, prefix: str) -> tuple[str | None, str]:
        """Return the schema and prefix that put tables into a space which otherwise are in ``schema`` with
        ``prefix``.
        """

    @abstractmethod
    def names_in(self, executor: Executor, space: str) -> list[str]:
        """Return the names that a space's tables, views, sequences and types have once they replace others; empty if it
        does not exist.
        """

    @abstractmethod
    def dependents(self, executor: Executor, schema: str | None, names: Sequence[str]) -> list[str]:
        """Return descriptions of objects that depend on those with these names and are not among them. They would keep
        reading the replaced tables.
        """

    @abstractmethod
    def lock(self, executor: Executor, tables: Sequence[TableName], timeout: float, *, reads: bool) -> None:
        """Lock tables against writing, or with ``reads`` also against reading, in the given order, until the
        transaction ends; waits at most ``timeout`` seconds for each.
        """

    @abstractmethod
    def replace(
        self, executor: Executor, schema: str | None, names: Sequence[str], *, by: str, to: str, is_default: bool
    ) -> None:
        """Move the objects with these names to the new space ``to``, and those of the space ``by`` to their place.

        Indexes, constraints, owned sequences and triggers move with their tables and have the same names as before;
        ``is_default`` means that the tables' definitions name no schema. Privileges on the old objects are granted on
        the new ones.
        """

    @abstractmethod
    def drop(self, executor: Executor, space: str) -> None:
        """Drop a space with all that is in it, if it exists."""


class RowTransfer(ABC):
    """Reads whole tables in one snapshot, and writes rows with the ids that they have elsewhere.

    An originator id of the type ``uuid`` is 16 bytes here, and one of the type ``text`` a str, on every database.
    """

    begin_snapshot: ClassVar[Sequence[str]]
    """Begins a transaction that only reads, and sees one state of the database."""

    @abstractmethod
    def select_originator_id(self, originator_id_type: OriginatorIDType) -> str:
        """Return the SQL expression that selects an originator id in the form above."""

    @abstractmethod
    def originator_id_parameter(self, originator_id_type: OriginatorIDType) -> str:
        """Return the SQL expression of a parameter that is an originator id in the form above."""

    @abstractmethod
    def insert(
        self, executor: Executor, table: TableName, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Insert rows. ``columns`` has the type of each value's column, as the table's shape names it."""
