"""The places in which the library's own test cases run: database, schema, prefix, and type of ids.

A test case of the library is a class. `in_places` creates a subclass for each place, in the test's module.
"""

import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Final, Literal, TypeVar
from uuid import UUID, uuid4

import pytest
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory

Database = Literal["memory", "file", "psycopg2", "psycopg", "pg8000"]

_T = TypeVar("_T", bound=type)

# Difficult names: capitals, spaces, both quotes, a dash, a percent sign, letters of two bytes.
SCHEMA: Final = 'Größe\'s "1" %s-x {number}'
PREFIX: Final = 'Präfix\'s "%s"-'


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database, and the settings that place the tables in it."""

    database: Database
    schema: bool = False
    prefix: bool = False
    text_ids: bool = False

    def __str__(self) -> str:
        parts = {"Schema": self.schema, "Prefix": self.prefix, "Text": self.text_ids}
        return self.database.capitalize() + "".join(name for name, chosen in parts.items() if chosen)

    @property
    def is_server(self) -> bool:
        """Return whether the database is on a server."""
        return self.database not in ("memory", "file")

    def variables(self, url: str) -> dict[str, str]:
        """Return this place's environment variables, with a new schema if it has one."""
        variables = {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": url}
        if self.schema:
            variables["SQLALCHEMY_SCHEMA"] = SCHEMA.replace("{number}", secrets.token_hex(4))
        if self.prefix:
            variables["SQLALCHEMY_TABLE_PREFIX"] = PREFIX
        if self.text_ids:
            variables["ORIGINATOR_ID_TYPE"] = "text"
        return variables


# On SQLite all pairs. On PostgreSQL every driver with every placement, and both types of ids for each driver and for
# each placement.
SQLITE_PLACES: Final = (
    Place(database="memory"),
    Place(database="memory", prefix=True, text_ids=True),
    Place(database="file", text_ids=True),
    Place(database="file", prefix=True),
)
DRIVERS: Final[tuple[Database, ...]] = ("psycopg2", "psycopg", "pg8000")
POSTGRES_PLACES: Final = tuple(
    Place(database=driver, schema=schema, prefix=prefix, text_ids=bool((number + schema + prefix) % 2))
    for (number, driver), schema, prefix in product(enumerate(DRIVERS), (False, True), (False, True))
)
PLACES: Final = SQLITE_PLACES + POSTGRES_PLACES

# For slow tests: every database and driver once, and each setting at least twice.
SOME_PLACES: Final = (
    Place(database="memory"),
    Place(database="file", prefix=True),
    Place(database="psycopg2", schema=True, prefix=True, text_ids=False),
    Place(database="psycopg", schema=True, text_ids=False),
    Place(database="pg8000", schema=True, text_ids=True),
)


class InPlace:
    """Sets up a test case with the variables of its place and a factory, and removes everything afterwards."""

    __test__ = False
    place: ClassVar[Place]
    variables: dict[str, str]
    factory: SQLAlchemyFactory

    @pytest.fixture(autouse=True)
    def in_place(self, place_variables: Callable[[Place], dict[str, str]]) -> Iterator[None]:
        """Open and close the factory."""
        self.variables = place_variables(self.place)
        self.factory = SQLAlchemyFactory(Environment("Case", self.variables))
        yield
        self.factory.close()

    def new_originator_id(self) -> UUID | str:
        """Return an id of this place's type."""
        return f"Größe-{uuid4()}" if self.place.text_ids else uuid4()


def in_places(*places: Place, without: tuple[str, ...] = ()) -> Callable[[_T], _T]:
    """Return a decorator that adds a subclass per place to the module; `without` names tests to skip."""

    def decorate(base: _T) -> _T:
        for place in places:
            name = f"{base.__name__}In{place}"
            attributes: dict[str, Any] = {"place": place, "__test__": True, "__module__": base.__module__}
            attributes |= dict.fromkeys(without)
            assert not hasattr(sys.modules[base.__module__], name), f"{name} exists already"
            setattr(sys.modules[base.__module__], name, type(name, (base,), attributes))
        return base

    return decorate
