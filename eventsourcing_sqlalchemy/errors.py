"""Turn the errors of SQLAlchemy, of the drivers and of the databases into the library's exceptions.

The whole mapping is in this module, as tables: SQLSTATE first (PostgreSQL says exactly what happened), then the class
of the error. Messages carry the first line of what the driver said and never the statement or its parameters.

    PersistenceError
    ├── InterfaceError
    └── DatabaseError
        ├── DataError          the values cannot be stored
        ├── IntegrityError     somebody else was first (an event, a tracking position)
        ├── InternalError      the state of a transaction or a cursor is wrong
        ├── NotSupportedError
        ├── OperationalError   the database, the network, the pool, a lock
        │   └── ConnectionLostError   ... and the outcome of what was under way is not known
        └── ProgrammingError   a table is missing, a right is missing, wrong use
            └── SequenceBehindError   a sequence gives out ids that are not above the last one
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

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

if TYPE_CHECKING:
    from uuid import UUID

    from eventsourcing.persistence import Tracking

__all__ = [
    "READ_ONLY",
    "ConnectionLostError",
    "SequenceBehindError",
    "SettingsError",
    "cause_of",
    "constraint",
    "describe",
    "is_retryable",
    "sqlstate",
    "translate",
]


class SettingsError(EnvironmentError):
    """An environment variable is missing, malformed or contradicts another one.

    The library itself raises ``EnvironmentError`` for such mistakes. ``variable`` is the name of the variable.
    """

    def __init__(self, message: str, *, variable: str = "") -> None:
        super().__init__(message)
        self.variable = variable


class ConnectionLostError(OperationalError):
    """The connection broke while a statement was under way.

    When it is not known whether events were recorded, ``events`` has the (originator id, version) of each, and
    ``tracking`` the position that was to be recorded with them. Otherwise they are empty and None.
    """

    def __init__(
        self, *args: object, events: Sequence[tuple[UUID | str, int]] = (), tracking: Tracking | None = None
    ) -> None:
        super().__init__(*args)
        self.events = events
        self.tracking = tracking


READ_ONLY: Final = "25006"
"""The SQLSTATE of a write that is refused in a read-only transaction: by a standby, or by
``default_transaction_read_only``.
"""


class SequenceBehindError(ProgrammingError):
    """The sequence of a table of events gives out ids that are not above the last one; nothing was recorded.

    Followers read a table by its ids, so they would never see such an event. ``table`` and ``sequence`` are the names.
    """

    def __init__(self, message: str, *, table: str = "", sequence: str = "") -> None:
        super().__init__(message)
        self.table = table
        self.sequence = sequence


_BY_SQLSTATE: Final[dict[str, type[PersistenceError]]] = {
    READ_ONLY: OperationalError,
    "25P03": OperationalError,  # idle in transaction for too long: the server closed the connection
    "SQLITE_ERROR": ProgrammingError,  # a missing table, wrong SQL; the driver calls it an OperationalError
}

_BY_SQLSTATE_CLASS: Final[dict[str, type[PersistenceError]]] = {
    "08": OperationalError,
    "0A": NotSupportedError,
    "20": ProgrammingError,
    "21": ProgrammingError,
    "22": DataError,
    "23": IntegrityError,
    "24": InternalError,
    "25": InternalError,
    "26": OperationalError,
    "28": OperationalError,
    "2B": InternalError,
    "2D": InternalError,
    "3B": InternalError,
    "3D": ProgrammingError,
    "3F": ProgrammingError,
    "40": OperationalError,
    "42": ProgrammingError,
    "44": ProgrammingError,
    "53": OperationalError,
    "54": OperationalError,
    "55": OperationalError,
    "57": OperationalError,
    "58": OperationalError,
    "F0": InternalError,
    "P0": InternalError,
    "XX": InternalError,
}

# The names of PEP 249, which SQLAlchemy's wrappers share with every driver, and SQLAlchemy's own classes.
_BY_CLASS_NAME: Final[dict[str, type[PersistenceError]]] = {
    "InterfaceError": InterfaceError,
    "DataError": DataError,
    "IntegrityError": IntegrityError,
    "InternalError": InternalError,
    "NotSupportedError": NotSupportedError,
    "OperationalError": OperationalError,
    "ProgrammingError": ProgrammingError,
    "DatabaseError": DatabaseError,
    "DBAPIError": DatabaseError,
    "AmbiguousForeignKeysError": ProgrammingError,
    "ArgumentError": ProgrammingError,
    "AsyncContextAlreadyStarted": ProgrammingError,
    "AsyncContextNotStarted": ProgrammingError,
    "AwaitRequired": ProgrammingError,
    "CircularDependencyError": ProgrammingError,
    "CompileError": ProgrammingError,
    "ConstraintColumnNotFoundError": ProgrammingError,
    "DetachedInstanceError": ProgrammingError,
    "DisconnectionError": OperationalError,
    "DuplicateColumnError": ProgrammingError,
    "EmulatedDBAPIException": DatabaseError,
    "FlushError": ProgrammingError,
    "IdentifierError": ProgrammingError,
    "IllegalStateChangeError": InternalError,
    "InvalidRequestError": ProgrammingError,
    "InvalidatePoolError": OperationalError,
    "MissingGreenlet": ProgrammingError,
    "MultipleResultsFound": ProgrammingError,
    "NoForeignKeysError": ProgrammingError,
    "NoInspectionAvailable": ProgrammingError,
    "NoReferenceError": ProgrammingError,
    "NoReferencedColumnError": ProgrammingError,
    "NoReferencedTableError": ProgrammingError,
    "NoResultFound": ProgrammingError,
    "NoSuchColumnError": ProgrammingError,
    "NoSuchModuleError": InterfaceError,
    "NoSuchTableError": ProgrammingError,
    "ObjectDereferencedError": ProgrammingError,
    "ObjectNotExecutableError": ProgrammingError,
    "PendingRollbackError": InternalError,
    "ResourceClosedError": InternalError,
    "SQLAlchemyError": PersistenceError,
    "StaleDataError": IntegrityError,  # somebody else has changed or removed the row of an object
    "StatementError": DataError,  # raised for values that a driver or a column type refuses
    "TimeoutError": OperationalError,  # no connection of the pool became free in time
    "UnboundExecutionError": ProgrammingError,
    "UnreflectableTableError": ProgrammingError,
    "UnsupportedCompilationError": NotSupportedError,
    "Error": DatabaseError,
    "Warning": DatabaseError,  # PEP 249's, which is an error
}

# What drivers raise outside of their own hierarchy when a value cannot be sent: psycopg2 a ValueError for a NUL in a
# text, sqlite3 an OverflowError for an integer of more than 64 bits, pg8000 a struct.error.
_VALUE_ERRORS: Final = (ValueError, TypeError, OverflowError)

# A class can be given any name at run time, and an exception of a user any text for a code: both may hold a value.
_NOT_IN_NAMES: Final = re.compile(r"[^\w.<>]")
_IS_CODE: Final = re.compile("[0-9A-Z]{5}|[A-Z]+(_[A-Z]+)+")
_MAX_NAME: Final = 200

# Deadlock, serialisation, lock timeout, lock not available, too many connections, shutdown, starting up, connection
# trouble, a server that is about to be replaced.
_RETRYABLE: Final = ("08", "40", "53", "55P03", "57P", "25P03", READ_ONLY)


def sqlstate(error: BaseException | None) -> str | None:
    """Return the SQLSTATE that the server gave for an error or for one of its causes, or None."""
    for each in _chain(error):
        code = getattr(each, "sqlstate", None) or getattr(each, "pgcode", None) or _field(each, "C")
        if isinstance(code, str):
            return code
    return None


def constraint(error: BaseException | None) -> str | None:
    """Return the name of the constraint or index that the server gave for an error or for one of its causes, or
    None.
    """
    for each in _chain(error):
        name = getattr(getattr(each, "diag", None), "constraint_name", None) or _field(each, "n")
        if isinstance(name, str):
            return name
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, as the driver raised them: each once, because code can make one its own cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        original = getattr(error, "orig", None)
        if isinstance(original, BaseException):
            error = original
        yield error
        error = error.__cause__


def _field(error: BaseException, name: str) -> object:
    """Return a field of the server's message where the driver keeps them in a dict."""
    fields = error.args[0] if error.args else None
    return fields.get(name) if isinstance(fields, dict) else None


def _code(error: Exception) -> str:
    """Return the SQLSTATE, or the name that SQLite gives to its own code, or the encoding that a text does not fit
    into, or nothing.
    """
    original = getattr(error, "orig", None) or error
    if isinstance(original, UnicodeEncodeError):
        return original.encoding
    return sqlstate(error) or getattr(original, "sqlite_errorname", None) or ""


def describe(error: BaseException) -> str:
    """Return the class of an error, and the code that the database gave for it or for one of its causes.

    For logs and records: never what the error says, which may contain values.
    """
    cls = type(error)
    names = (getattr(each, "sqlite_errorname", None) for each in _chain(error))
    code = sqlstate(error) or next(filter(None, names), "")
    name = _NOT_IN_NAMES.sub("", f"{cls.__module__}.{cls.__qualname__}")[:_MAX_NAME]
    return f"{name} {code}" if _IS_CODE.fullmatch(str(code)) else name


def is_retryable(error: PersistenceError) -> bool:
    """Return True when the same call may succeed if it is made again, in a new transaction."""
    if isinstance(error, ConnectionLostError):
        return True
    code = sqlstate(error)
    if code is not None:
        return code.startswith(_RETRYABLE)
    return isinstance(error, OperationalError)


def translate(
    error: Exception, subject: str = "", remedies: Mapping[str, str] = MappingProxyType({})
) -> PersistenceError:
    """Return the library's exception for an error of SQLAlchemy or of a driver; raise the result ``from`` the error.

    ``subject`` names the object that the message is about, for example a table. ``remedies`` says what to do, by
    SQLSTATE. An exception of the library is returned as it is.
    """
    if isinstance(error, PersistenceError):
        return error
    original = getattr(error, "orig", None)
    message = _message(error if original is None else original, subject)
    remedy = remedies.get(_code(error))
    return _class_of(error)(f"{message}. {remedy}." if remedy else message)


def cause_of(error: Exception) -> BaseException | None:
    """Return what to raise the translation of an error from: the error, or, where that is the library's already and so
    its own translation, its cause.
    """
    return error.__cause__ if isinstance(error, PersistenceError) else error


def _class_of(error: Exception) -> type[PersistenceError]:
    if getattr(error, "connection_invalidated", False):
        return ConnectionLostError  # SQLAlchemy saw that the connection is broken, whatever the driver calls it
    code = _code(error)
    cls = _BY_SQLSTATE.get(code) or _BY_SQLSTATE_CLASS.get(code[:2])
    if cls is not None:
        return cls
    for base in type(error).__mro__:
        cls = _BY_CLASS_NAME.get(base.__name__)
        if cls is not None:
            return cls
    if isinstance(error, _VALUE_ERRORS) or type(error).__module__ == "struct":
        return DataError
    if isinstance(error, OSError):
        return OperationalError
    return PersistenceError


def _message(error: BaseException, subject: str) -> str:
    fields = error.args[0] if error.args else None
    text = str(fields.get("M", "")) if isinstance(fields, dict) else str(error)  # a dict comes from pg8000
    first_line = text.strip().partition("\n")[0] or type(error).__name__
    return f"{subject}: {first_line}" if subject else first_line
