"""The databases that the demo runs on, and the queries that it sends without the applications.

Entering a database starts it or connects to it; leaving it removes everything that the demo created there.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, ClassVar, Self

from eventsourcing.persistence import PersistenceError
from sqlalchemy import Engine, Executable, text

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore


class UnusableDatabaseError(Exception):
    """The demo cannot run on the requested database; the message contains the remedy."""


class Database(ABC):
    """A database that holds the demo's tables."""

    placement_variable: ClassVar[str]
    """The environment variable that places an application's tables."""
    placement_noun: ClassVar[str]
    """The kind of placement that the variable sets: `schema` or `table prefix`."""
    placement_noun_plural: ClassVar[str]
    """The same in the plural."""

    url: str
    """The value of SQLALCHEMY_URL."""
    headline: str
    """The database, how it was reached, and its durability settings."""
    announcement = ""
    """The objects that the demo will create in a given database; empty for its own database."""
    kept = ""
    """The location of the data if it is kept; set on leaving."""

    _observer: Engine
    """The demo's own engine, whose connections are not counted."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._cleaning = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleaning:
            self._open(cleaning)
            self._cleaning = cleaning.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleaning.close()

    @abstractmethod
    def _open(self, cleaning: ExitStack) -> None:
        """Make the database usable and set the attributes; push clean-up steps onto `cleaning`."""

    @abstractmethod
    def remains(self) -> str:
        """Describe what should have been removed but remains; empty if nothing remains."""

    @abstractmethod
    def template(self, stem: str) -> str:
        """Return the value of `placement_variable` for placements named after `stem`."""

    @abstractmethod
    def tables(self) -> Sequence[tuple[str, str]]:
        """Return (schema, name) of the demo's tables from the catalog; the schema is empty on SQLite."""

    @abstractmethod
    def connections(self) -> int:
        """Return how many connections the applications have open, as seen from outside."""

    def environment(self, stem: str) -> Mapping[str, str]:
        """Return the variables that give each application its own placement in this database."""
        return {
            "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
            "SQLALCHEMY_URL": self.url,
            self.placement_variable: self.template(stem),
        }

    @property
    def registry(self) -> str:
        """The common prefix of the registry's table names, schema included."""
        return self.template("tenancy")

    @property
    @abstractmethod
    def fleet_environment(self) -> Mapping[str, str]:
        """The variables that place the tenants and the registry in this database."""

    def query(self, statement: str | Executable, **parameters: object) -> Sequence[Sequence[Any]]:
        """Run a query on the demo's own engine and return the rows."""
        with self._observer.connect() as connection:
            return connection.execute(text(statement) if isinstance(statement, str) else statement, parameters).all()


def ask(url: str, *questions: str) -> list[Any]:
    """Return the first value of each query, through a connection like the applications'.

    Raises UnusableDatabaseError if the URL or its database cannot be used.
    """
    try:
        datastore = SQLAlchemyDatastore(url=url)
        try:
            with datastore.get_connection() as connection:
                return [connection.exec_driver_sql(question).scalar() for question in questions]
        finally:
            datastore.close()
    except (PersistenceError, OSError) as error:  # The package's SettingsError is an OSError.
        raise UnusableDatabaseError(str(error)) from error
