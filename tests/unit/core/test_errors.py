"""Errors of SQLAlchemy, of the drivers and of the databases map to the library's errors."""

from __future__ import annotations

import asyncio
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pg8000.exceptions
import psycopg
import psycopg.errors
import psycopg2
import psycopg2.errorcodes
import psycopg2.errors
import psycopg2.extensions
import pytest
import sqlalchemy.exc
import sqlalchemy.orm.exc
from eventsourcing.persistence import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    PersistenceError,
    ProgrammingError,
)

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.errors import (
    ConnectionLostError,
    SettingsError,
    describe,
    is_retryable,
    sqlstate,
    translate,
)

PEP_249: Final[dict[str, type[PersistenceError]]] = {
    "Warning": DatabaseError,
    "Error": DatabaseError,
    "InterfaceError": InterfaceError,
    "DatabaseError": DatabaseError,
    "DataError": DataError,
    "OperationalError": OperationalError,
    "IntegrityError": IntegrityError,
    "InternalError": InternalError,
    "ProgrammingError": ProgrammingError,
    "NotSupportedError": NotSupportedError,
}

# Listed one by one, so that a class of a new SQLAlchemy needs a decision.
SQLALCHEMY: Final[dict[str, type[PersistenceError]]] = PEP_249 | {
    "AmbiguousColumnError": ProgrammingError,
    "AmbiguousForeignKeysError": ProgrammingError,
    "ArgumentError": ProgrammingError,
    "AwaitRequired": ProgrammingError,
    "CircularDependencyError": ProgrammingError,
    "CompileError": ProgrammingError,
    "ConstraintColumnNotFoundError": ProgrammingError,
    "DBAPIError": DatabaseError,
    "DetachedInstanceError": ProgrammingError,
    "DisconnectionError": OperationalError,
    "DuplicateColumnError": ProgrammingError,
    "EmulatedDBAPIException": DatabaseError,
    "FlushError": ProgrammingError,
    "IdentifierError": ProgrammingError,
    "IllegalStateChangeError": InternalError,
    "InvalidRequestError": ProgrammingError,
    "InvalidatePoolError": OperationalError,
    "LoaderStrategyException": ProgrammingError,
    "MappedAnnotationError": ProgrammingError,
    "MissingGreenlet": ProgrammingError,
    "MultipleResultsFound": ProgrammingError,
    "NoDBAPILoaded": ProgrammingError,
    "NoForeignKeysError": ProgrammingError,
    "NoInspectionAvailable": ProgrammingError,
    "NoReferenceError": ProgrammingError,
    "NoReferencedColumnError": ProgrammingError,
    "NoReferencedTableError": ProgrammingError,
    "NoResultFound": ProgrammingError,
    "NoSuchColumnError": ProgrammingError,
    "NoSuchModuleError": InterfaceError,
    "NoSuchTableError": ProgrammingError,
    "ObjectDeletedError": ProgrammingError,
    "ObjectDereferencedError": ProgrammingError,
    "ObjectNotExecutableError": ProgrammingError,
    "PendingRollbackError": InternalError,
    "ResourceClosedError": InternalError,
    "SQLAlchemyError": PersistenceError,
    "StaleDataError": IntegrityError,
    "StatementError": DataError,
    "TimeoutError": OperationalError,
    "UnboundExecutionError": ProgrammingError,
    "UnmappedClassError": ProgrammingError,
    "UnmappedColumnError": ProgrammingError,
    "UnmappedError": ProgrammingError,
    "UnmappedInstanceError": ProgrammingError,
    "UnreflectableTableError": ProgrammingError,
    "UnsupportedCompilationError": NotSupportedError,
}


def exceptions_of(*modules: ModuleType) -> Iterator[type[Exception]]:
    """Yield the exceptions that modules define, without mere warnings."""
    for module in modules:
        for cls in vars(module).values():
            is_error = isinstance(cls, type) and issubclass(cls, Exception) and not issubclass(cls, Warning)
            if is_error and cls.__module__.startswith("sqlalchemy"):
                yield cls


ALL_OF_SQLALCHEMY: Final = sorted(
    set(exceptions_of(sqlalchemy.exc, sqlalchemy.orm.exc)), key=lambda cls: cls.__qualname__
)


def raised(cls: type[Exception]) -> Exception:
    """Return an instance of an error class, whatever its constructor requires."""
    if issubclass(cls, sqlalchemy.exc.DBAPIError):
        return cls(None, None, Exception("what happened"))
    if issubclass(cls, sqlalchemy.exc.StatementError):
        return cls("what happened", None, None, None)
    error = cls.__new__(cls, "what happened")
    error.args = ("what happened",)
    return error


def check_every_class(classes: list[type[Exception]], expected: dict[str, type[PersistenceError]]) -> None:
    unknown = [cls.__qualname__ for cls in classes if cls.__name__ not in expected]
    assert unknown == [], "map these in eventsourcing_sqlalchemy/errors.py, and list them here"
    for cls in classes:
        assert type(translate(raised(cls))) is expected[cls.__name__], cls.__qualname__


def test_every_class_of_sqlalchemy_is_mapped() -> None:
    assert len(ALL_OF_SQLALCHEMY) > 40
    check_every_class(ALL_OF_SQLALCHEMY, SQLALCHEMY)


def test_unmapped_class_is_noticed() -> None:
    """Proves that the test above can fail."""

    class NewError(sqlalchemy.exc.SQLAlchemyError):
        """A class of a future SQLAlchemy."""

    with pytest.raises(AssertionError, match="map these"):
        check_every_class([*ALL_OF_SQLALCHEMY, NewError], SQLALCHEMY)


# -- drivers --

DRIVERS: Final[list[ModuleType]] = [psycopg2, psycopg, pg8000.exceptions, sqlite3]


@pytest.mark.parametrize("module", DRIVERS, ids=lambda module: module.__name__)
@pytest.mark.parametrize("name", PEP_249)
def test_every_class_of_a_driver_is_mapped(module: ModuleType, name: str) -> None:
    cls = getattr(module, name, None)
    if cls is None:
        cls = getattr(pg8000.dbapi, name)  # pg8000 has them in two modules
    assert type(translate(raised(cls))) is PEP_249[name]


@pytest.mark.parametrize("name", [name for name in PEP_249 if name != "Warning"])
@pytest.mark.parametrize("module", [psycopg2, psycopg, sqlite3], ids=lambda module: module.__name__)
def test_wrapped_error_of_a_driver_is_mapped_alike(module: ModuleType, name: str) -> None:
    original = raised(getattr(module, name))
    wrapped = sqlalchemy.exc.DBAPIError.instance("SELECT 1", {}, original, module.Error)
    assert isinstance(wrapped, sqlalchemy.exc.DBAPIError)
    assert type(translate(wrapped)) is PEP_249[name]
    assert type(translate(wrapped)) is type(translate(original))


def subclasses(cls: type[Exception]) -> Iterator[type[Exception]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


@pytest.mark.parametrize("base", [psycopg2.Error, psycopg.Error, sqlite3.Error])
def test_no_class_of_a_driver_is_unmapped(base: type[Exception]) -> None:
    classes = [base, *subclasses(base)]
    assert len(classes) >= 8
    for cls in classes:
        assert type(translate(raised(cls))) is not PersistenceError, cls


# -- SQLSTATE --

BY_SQLSTATE: Final[dict[str, type[PersistenceError]]] = {
    "08000": OperationalError,  # connection exception
    "08006": OperationalError,  # connection failure
    "08P01": OperationalError,  # protocol violation
    "0A000": NotSupportedError,  # feature not supported
    "22001": DataError,  # string data right truncation
    "22003": DataError,  # numeric value out of range
    "22021": DataError,  # character not in repertoire: a NUL
    "22P02": DataError,  # invalid text representation
    "23502": IntegrityError,  # not null violation
    "23503": IntegrityError,  # foreign key violation
    "23505": IntegrityError,  # unique violation
    "23514": IntegrityError,  # check violation
    "24000": InternalError,  # invalid cursor state
    "25001": InternalError,  # active SQL transaction
    "25006": OperationalError,  # read only SQL transaction
    "25P02": InternalError,  # in failed SQL transaction
    "25P03": OperationalError,  # idle in transaction session timeout
    "26000": OperationalError,  # invalid SQL statement name: a prepared statement of another server process
    "28000": OperationalError,  # invalid authorization specification
    "28P01": OperationalError,  # invalid password
    "2BP01": InternalError,  # dependent objects still exist
    "3D000": ProgrammingError,  # invalid catalog name
    "3F000": ProgrammingError,  # invalid schema name
    "40001": OperationalError,  # serialization failure
    "40P01": OperationalError,  # deadlock detected
    "42501": ProgrammingError,  # insufficient privilege
    "42601": ProgrammingError,  # syntax error
    "42703": ProgrammingError,  # undefined column
    "42P01": ProgrammingError,  # undefined table
    "42P07": ProgrammingError,  # duplicate table
    "53100": OperationalError,  # disk full
    "53300": OperationalError,  # too many connections
    "54000": OperationalError,  # program limit exceeded
    "55000": OperationalError,  # object not in prerequisite state
    "55P03": OperationalError,  # lock not available
    "57014": OperationalError,  # query canceled
    "57P01": OperationalError,  # admin shutdown
    "57P02": OperationalError,  # crash shutdown
    "57P03": OperationalError,  # cannot connect now
    "58030": OperationalError,  # IO error
    "P0001": InternalError,  # raise exception
    "XX000": InternalError,  # internal error
}
RETRYABLE: Final = {
    "08000", "08006", "08P01", "25006", "25P03", "40001", "40P01", "53100", "53300", "55P03", "57P01", "57P02", "57P03",
}  # fmt: skip


class Psycopg2Error(psycopg2.DatabaseError):
    """An error as the server raises it; one that Python code constructs has no code."""

    def __init__(self, code: str) -> None:
        super().__init__("what happened")
        self.code = code

    @property
    def pgcode(self) -> str:  # type: ignore[override] # (a slot there)
        return self.code


class PsycopgError(psycopg.DatabaseError):
    """An error with a given code."""

    def __init__(self, code: str) -> None:
        super().__init__("what happened")
        self.sqlstate = code


def errors_with(code: str) -> list[Exception]:
    """Return a server error as each driver raises it, bare and wrapped."""
    bare: list[Exception] = [
        Psycopg2Error(code),
        PsycopgError(code),
        pg8000.exceptions.DatabaseError({"S": "ERROR", "C": code, "M": "what happened"}),
    ]
    wrapped = [sqlalchemy.exc.DatabaseError("SELECT 1", {}, error) for error in bare]
    return [*bare, *wrapped]


@pytest.mark.parametrize(("code", "expected"), BY_SQLSTATE.items())
def test_sqlstate_decides_whatever_the_class(code: str, expected: type[PersistenceError]) -> None:
    for error in errors_with(code):
        assert sqlstate(error) == code
        translated = translate(error)
        assert type(translated) is expected
        assert str(translated) == "what happened"


@pytest.mark.parametrize("code", BY_SQLSTATE)
def test_retryable_errors(code: str) -> None:
    for error in errors_with(code):
        translated = translate(error)
        translated.__cause__ = error
        assert is_retryable(translated) is (code in RETRYABLE)


def test_no_sqlstate_is_unmapped() -> None:
    codes = {code for name, code in vars(psycopg2.errorcodes).items() if name.isupper() and len(str(code)) == 5}
    codes |= {cls.sqlstate for cls in subclasses(psycopg.Error) if cls.sqlstate}  # type: ignore[attr-defined] # (psycopg's)
    assert len(codes) > 240
    for code in codes:
        for error in errors_with(code):
            assert type(translate(error)) is not PersistenceError, code


def test_unknown_sqlstate_is_mapped_by_class() -> None:
    error = PsycopgError("ZZ999")
    assert type(translate(error)) is DatabaseError
    assert type(translate(sqlalchemy.exc.IntegrityError("SELECT 1", {}, error))) is IntegrityError


def test_connection_errors_without_sqlstate_are_retryable() -> None:
    assert is_retryable(translate(raised(sqlite3.OperationalError)))
    assert is_retryable(translate(raised(sqlalchemy.exc.TimeoutError)))
    assert is_retryable(ConnectionLostError("gone"))
    assert not is_retryable(translate(raised(sqlite3.IntegrityError)))
    assert not is_retryable(translate(raised(ValueError)))


# -- codes of SQLite --


@pytest.mark.parametrize(
    ("statement", "expected", "may_be_tried_again"),
    [
        ("SELECT * FROM missing", ProgrammingError, False),
        ("SELECT missing FROM t", ProgrammingError, False),
        ("SELEKT", ProgrammingError, False),
        ("INSERT INTO t VALUES (1)", IntegrityError, False),
        ("INSERT INTO t VALUES (NULL)", IntegrityError, False),
        ("INSERT INTO t VALUES (2)", OperationalError, True),
    ],
)
def test_code_of_sqlite_decides(
    statement: str, expected: type[PersistenceError], may_be_tried_again: bool, tmp_path: Path
) -> None:
    with (
        closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None, timeout=0)) as connection,
        closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other,
    ):
        connection.execute("CREATE TABLE t (a INTEGER NOT NULL UNIQUE)")
        connection.execute("INSERT INTO t VALUES (1)")
        if expected is OperationalError:
            other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.Error) as refused:
            connection.execute(statement)
    wrapped = sqlalchemy.exc.DBAPIError.instance(statement, {}, refused.value, sqlite3.Error)
    assert isinstance(wrapped, sqlalchemy.exc.DBAPIError)
    for error in (refused.value, wrapped):
        translated = translate(error, remedies={"SQLITE_ERROR": "Fix it"})
        translated.__cause__ = error
        assert type(translated) is expected
        assert is_retryable(translated) is may_be_tried_again
        assert str(translated).endswith("Fix it.") is (expected is ProgrammingError)


# -- errors outside of DBAPI --


def test_nul_in_a_text_is_a_data_error() -> None:
    with pytest.raises(ValueError, match="NUL") as refused:
        psycopg2.extensions.QuotedString("a\0b").getquoted()
    assert type(translate(refused.value)) is DataError


@pytest.mark.parametrize("value", [2**64, object()])
def test_value_that_a_driver_cannot_send_is_a_data_error(value: object) -> None:
    connection = sqlite3.connect(":memory:")
    with pytest.raises((OverflowError, sqlite3.Error)) as refused:
        connection.execute("SELECT ?", (value,))
    connection.close()
    assert isinstance(translate(refused.value), (DataError, ProgrammingError, InterfaceError))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("x"), DataError),
        (TypeError("x"), DataError),
        (OverflowError("x"), DataError),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), DataError),
        (struct.error("x"), DataError),
        (OSError("x"), OperationalError),
        (ConnectionResetError("x"), OperationalError),
        (BrokenPipeError("x"), OperationalError),
        (TimeoutError("x"), OperationalError),
        (RuntimeError("x"), PersistenceError),
    ],
)
def test_other_errors(error: Exception, expected: type[PersistenceError]) -> None:
    assert type(translate(error)) is expected


def test_errors_of_the_library_stay_as_they_are() -> None:
    error = IntegrityError("x")
    assert translate(error, "subject") is error


def test_settings_error_is_not_one_of_the_database() -> None:
    assert not issubclass(SettingsError, PersistenceError)


# -- messages --


def test_message_has_object_fact_and_remedy() -> None:
    error = pg8000.exceptions.DatabaseError({"C": "42P01", "M": "relation does not exist"})
    translated = translate(error, "Table dogs", {"42P01": "Create it", "42501": "Grant it"})
    assert str(translated) == "Table dogs: relation does not exist. Create it."


def test_message_is_the_first_line_without_statement_and_values() -> None:
    original = psycopg.errors.UniqueViolation("duplicate key\nDETAIL:  Key (name)=(s3cr3t) already exists.")
    wrapped = sqlalchemy.exc.IntegrityError("INSERT INTO t VALUES (%s)", {"name": "s3cr3t"}, original)
    assert str(translate(wrapped)) == "duplicate key"
    unwrapped = sqlalchemy.exc.StatementError("cannot bind", "INSERT INTO t", {"name": "s3cr3t"}, None)
    assert str(translate(unwrapped)) == "cannot bind"


def test_error_without_text_is_named_by_its_class() -> None:
    assert str(translate(sqlite3.OperationalError())) == "OperationalError"
    assert str(translate(ConnectionResetError(), "Table dogs")) == "Table dogs: ConnectionResetError"


def test_sqlstate_is_found_in_the_causes() -> None:
    error = OperationalError("outer")
    error.__cause__ = PsycopgError("40001")
    assert sqlstate(error) == "40001"
    assert sqlstate(None) is None
    assert sqlstate(ValueError("x")) is None


class NamedError(Exception):
    """A user's error, whose `code` attribute is unrelated."""

    sqlstate = "Jane Doe"


def test_description_has_class_and_code_and_never_the_message() -> None:
    outer = OperationalError("canary")
    assert describe(outer) == "eventsourcing.persistence.OperationalError"
    outer.__cause__ = sqlalchemy.exc.DBAPIError("canary", {}, PsycopgError("40001"))
    assert describe(outer) == "eventsourcing.persistence.OperationalError 40001"
    assert describe(NamedError("canary")) == f"{__name__}.NamedError"
    assert describe(type("Jane Doe's", (ValueError,), {"__module__": "shop"})("canary")) == "shop.JaneDoes"
    own_cause = ValueError("canary")
    own_cause.__cause__ = KeyError("canary")
    own_cause.__cause__.__cause__ = own_cause
    assert describe(own_cause) == "builtins.ValueError"


def test_cancellation_is_not_translated() -> None:
    """It is not an Exception, so the translation must not see it."""
    assert not issubclass(asyncio.CancelledError, Exception)


def driver_error(**attributes: Any) -> Exception:
    error = sqlalchemy.exc.OperationalError("SELECT 1", {}, sqlite3.OperationalError("gone"))
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def test_connection_invalidated_by_sqlalchemy_is_lost() -> None:
    assert type(translate(driver_error(connection_invalidated=True))) is ConnectionLostError
    assert type(translate(driver_error(connection_invalidated=False))) is OperationalError


def test_library_error_raised_by_a_creator_is_not_its_own_cause() -> None:
    """Following the causes would never end."""

    def refuse() -> Any:
        raise OperationalError("no token")

    datastore = SQLAlchemyDatastore(url="sqlite://", creator=refuse)
    calls: list[Callable[[], object]] = [
        lambda: datastore.run(lambda executor: executor.fetch("SELECT 1")),
        datastore.transaction().__enter__,
        datastore.get_connection().__enter__,
    ]
    for call in calls:
        with pytest.raises(OperationalError, match="no token") as raised:
            call()
        assert raised.value.__cause__ is None
        assert is_retryable(raised.value)
    datastore.close()
