"""Translate SQLAlchemy, driver and database errors into the library's exceptions.

The tables below hold the whole mapping. SQLSTATE takes precedence, because it is the most precise, then the error's
class. Messages carry the first line of the driver's message, and never the statement or its parameters.

    PersistenceError
    ├── InterfaceError
    └── DatabaseError
        ├── DataError          the values cannot be stored
        │   └── ArchiveError   an archive is damaged, or cannot be used for this
        ├── IntegrityError     another writer was first (an event, a tracking position)
        ├── InternalError      a transaction or a cursor is in the wrong state
        ├── NotSupportedError
        ├── OperationalError   the database, the network, the pool, a lock
        │   └── ConnectionLostError   the connection broke; the outcome may be unknown
        └── ProgrammingError   a missing table, a missing privilege, wrong use
            └── SequenceBehindError   a sequence generates ids at or below the table's last id
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final
from uuid import UUID

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
    Tracking,
)

__all__ = [
    "READ_ONLY",
    "ArchiveError",
    "ConnectionLostError",
    "SequenceBehindError",
    "SettingsError",
    "cause_of",
    "code_of",
    "constraint",
    "database_code",
    "describe",
    "frames_of",
    "is_retryable",
    "sqlstate",
    "translate",
]


class SettingsError(EnvironmentError):
    """An environment variable is missing, malformed or conflicts with another one.

    A subclass of ``EnvironmentError``, which the library raises in such cases. ``variable`` is the variable's name.
    """

    def __init__(self, message: str, *, variable: str = "") -> None:
        super().__init__(message)
        self.variable = variable


class ConnectionLostError(OperationalError):
    """The connection broke while a statement was under way.

    If the outcome of a write is unknown, ``events`` holds the (originator id, version) of each event and ``tracking``
    the position written with them. Otherwise they are empty and None.
    """

    def __init__(
        self, *args: object, events: Sequence[tuple[UUID | str, int]] = (), tracking: Tracking | None = None
    ) -> None:
        super().__init__(*args)
        self.events = events
        self.tracking = tracking


READ_ONLY: Final = "25006"
"""SQLSTATE of a write in a read-only transaction: on a standby, or under ``default_transaction_read_only``."""


class SequenceBehindError(ProgrammingError):
    """The sequence of an events table generates ids at or below the table's last id. Nothing was recorded.

    Followers read a table in id order, so they would miss such an event. ``table`` and ``sequence`` are SQL names.
    """

    def __init__(self, message: str, *, table: str = "", sequence: str = "") -> None:
        super().__init__(message)
        self.table = table
        self.sequence = sequence


class ArchiveError(DataError):
    """An archive file is damaged, of another format, or cannot be used for what was asked. Nothing was changed.

    ``path`` is the file, ``application`` and ``event_id`` name the event, where it is about one.
    """

    def __init__(self, message: str, *, path: str = "", application: str = "", event_id: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.application = application
        self.event_id = event_id


_BY_SQLSTATE: Final[dict[str, type[PersistenceError]]] = {
    READ_ONLY: OperationalError,
    "25P03": OperationalError,  # idle_in_transaction_session_timeout: the server closed the connection
    "SQLITE_ERROR": ProgrammingError,  # a missing table or wrong SQL; the driver raises OperationalError
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

# PEP 249 names, which SQLAlchemy's wrappers and all drivers share, and SQLAlchemy's own classes.
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
    "StaleDataError": IntegrityError,  # another transaction has changed or removed an object's row
    "StatementError": DataError,  # a driver or a column type rejects a value
    "TimeoutError": OperationalError,  # pool timeout
    "UnboundExecutionError": ProgrammingError,
    "UnreflectableTableError": ProgrammingError,
    "UnsupportedCompilationError": NotSupportedError,
    "Error": DatabaseError,
    "Warning": DatabaseError,  # PEP 249's Warning is an exception
}

# Drivers raise these outside their own hierarchy for a value that they cannot send: psycopg2 a ValueError for a NUL in
# a text, sqlite3 an OverflowError for an integer of more than 64 bits, pg8000 a struct.error.
_VALUE_ERRORS: Final = (ValueError, TypeError, OverflowError)

# Names of classes and modules, and a user exception's code, can be any text, and so leak a value.
_NOT_IN_NAMES: Final = re.compile(r"[^\w.<>]")
_IS_CODE: Final = re.compile("[0-9A-Z]{5}|[A-Z]+(_[A-Z]+)+")
_MAX_NAME: Final = 200
_MAX_FRAMES: Final = 20

# Deadlock, serialization failure, lock timeout, too many connections, shutdown, startup, connection failure, failover.
_RETRYABLE: Final = ("08", "40", "53", "55P03", "57P", "25P03", READ_ONLY)


def sqlstate(error: BaseException | None) -> str | None:
    """Return the SQLSTATE of an error or of one of its causes, or None."""
    for each in _chain(error):
        code = getattr(each, "sqlstate", None) or getattr(each, "pgcode", None) or _field(each, "C")
        if isinstance(code, str):
            return code
    return None


def database_code(error: BaseException | None) -> str | None:
    """Return the SQLSTATE, or SQLite's name, of an error or of one of its causes, or None."""
    names = (getattr(each, "sqlite_errorname", None) for each in _chain(error))
    return sqlstate(error) or next(filter(None, names), None)


def constraint(error: BaseException | None) -> str | None:
    """Return the constraint or index that an error or one of its causes names, or None."""
    for each in _chain(error):
        name = getattr(getattr(each, "diag", None), "constraint_name", None) or _field(each, "n")
        if isinstance(name, str):
            return name
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes as the driver raised them, each once: a cause chain may be circular."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        original = getattr(error, "orig", None)
        if isinstance(original, BaseException):
            error = original
        yield error
        error = error.__cause__


def _field(error: BaseException, name: str) -> object:
    """Return a field of the server's message if the driver keeps the fields in a dict (pg8000)."""
    fields = error.args[0] if error.args else None
    return fields.get(name) if isinstance(fields, dict) else None


def _code(error: Exception) -> str:
    """Return the :func:`database_code`, or the encoding that cannot represent a text; otherwise ""."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, UnicodeEncodeError):
        return original.encoding
    return database_code(error) or ""


def describe(error: BaseException) -> str:
    """Return an error's class, and the database's code for it or for one of its causes.

    Safe for logs and records: the message, which may contain values, is left out.
    """
    cls, code = type(error), code_of(error)
    name = _NOT_IN_NAMES.sub("", f"{cls.__module__}.{cls.__qualname__}")[:_MAX_NAME]
    return name if code is None else f"{name} {code}"


def code_of(error: BaseException) -> str | None:
    """Return the :func:`database_code`, or None for one that is unsafe in logs and records; see :func:`describe`."""
    code = str(database_code(error) or "")
    return code if _IS_CODE.fullmatch(code) else None


def frames_of(error: BaseException) -> list[str]:
    """Return an error's stack frames as module:function:line, innermost last; safe for logs and records, too."""
    frames, traceback = [], error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        module = _NOT_IN_NAMES.sub("", str(frame.f_globals.get("__name__", "")))[:_MAX_NAME]
        frames.append(f"{module}:{frame.f_code.co_qualname}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return frames[-_MAX_FRAMES:]


def is_retryable(error: PersistenceError) -> bool:
    """Return whether the same call may succeed when it is retried in a new transaction."""
    if isinstance(error, ConnectionLostError):
        return True
    code = sqlstate(error)
    if code is not None:
        return code.startswith(_RETRYABLE)
    return isinstance(error, OperationalError)


def translate(
    error: Exception, subject: str = "", remedies: Mapping[str, str] = MappingProxyType({})
) -> PersistenceError:
    """Return the library's exception for an error of SQLAlchemy or a driver; raise the result ``from`` the error.

    ``subject`` names the object of the message, for example a table. ``remedies`` maps a SQLSTATE to the action to
    take. The library's own exceptions are returned unchanged.
    """
    if isinstance(error, PersistenceError):
        return error
    original = getattr(error, "orig", None)
    message = _message(error if original is None else original, subject)
    remedy = remedies.get(_code(error))
    return _class_of(error)(f"{message}. {remedy}." if remedy else message)


def cause_of(error: Exception) -> BaseException | None:
    """Return the cause to give to an error's translation.

    This is the error itself, or its cause if :func:`translate` returns the error unchanged.
    """
    return error.__cause__ if isinstance(error, PersistenceError) else error


def _class_of(error: Exception) -> type[PersistenceError]:
    if getattr(error, "connection_invalidated", False):
        return ConnectionLostError  # SQLAlchemy detected the disconnect, whatever the driver's class
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
    text = str(fields.get("M", "")) if isinstance(fields, dict) else str(error)  # pg8000's is a dict
    first_line = text.strip().partition("\n")[0] or type(error).__name__
    return f"{subject}: {first_line}" if subject else first_line
