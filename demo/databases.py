"""The databases that the demo runs on, and what it asks them behind the applications' back.

Entering one starts or reaches it; leaving it removes everything that the demo made there.
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
    """The demo cannot run where it was asked to; the message says what to do."""


class Database(ABC):
    """Where the demo keeps its tables."""

    place_variable: ClassVar[str]
    """The environment variable that says where an application's tables go."""
    place: ClassVar[str]
    """What that variable sets: `schema` or `table prefix`."""
    places: ClassVar[str]
    """The same in the plural."""

    url: str
    """The value of SQLALCHEMY_URL."""
    headline: str
    """Which database this is, how it was reached and how safely it writes."""
    announcement = ""
    """What the demo is going to make in a database that is not its own; empty when it is."""
    kept = ""
    """Where the data is, if it was to be kept; known after leaving."""

    _observer: Engine
    """An engine of the demo's own, which does not count as the applications'."""

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
        """Make the database usable and set the attributes; `cleaning` gets what is to be done at the end."""

    @abstractmethod
    def remains(self) -> str:
        """Say what is left after leaving that should not be; empty when there is nothing."""

    @abstractmethod
    def template(self, stem: str) -> str:
        """Return the value of `place_variable` for places that are named like `stem`."""

    @abstractmethod
    def tables(self) -> Sequence[tuple[str, str]]:
        """Return (schema, name) of the demo's tables as the catalog lists them; without schemas, an empty one."""

    @abstractmethod
    def connections(self) -> int:
        """Return how many connections the applications have open now, as seen from outside of them."""

    def environment(self, stem: str) -> Mapping[str, str]:
        """Return the variables that put each application in a place of its own, here."""
        return {
            "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
            "SQLALCHEMY_URL": self.url,
            self.place_variable: self.template(stem),
        }

    @property
    def registry(self) -> str:
        """What the names of the registry's tables, with that of their schema, begin with."""
        return self.template("tenancy")

    @property
    @abstractmethod
    def fleet(self) -> Mapping[str, str]:
        """The variables of tenancy: where tenants and the registry go, here."""

    def query(self, statement: str | Executable, **parameters: object) -> Sequence[Sequence[Any]]:
        """Return the rows of a query, asked on a connection of the demo's own."""
        with self._observer.connect() as connection:
            return connection.execute(text(statement) if isinstance(statement, str) else statement, parameters).all()


def ask(url: str, *questions: str) -> list[Any]:
    """Return the first value of each query, asked through the package, as the applications are going to connect.

    Raises UnusableDatabaseError when the URL or what it leads to does not serve.
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
