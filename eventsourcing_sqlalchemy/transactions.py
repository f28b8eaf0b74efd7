"""Transactions that a user opens around events and other changes, and which calls join them.

A transaction belongs to the datastore it was opened for and to the context that opened it. Calls made in that context
through the same datastore join it; another thread, another task, a copied context (as ``asyncio.to_thread`` makes) and
every other application never do. A thread with an empty context and another application get transactions of their own.
Recording in a copied context is refused: its author expects it to be part of the transaction, which it is not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, Token
from inspect import CO_GENERATOR
from types import FrameType, MappingProxyType, TracebackType
from typing import Any, Final, Protocol, cast

from eventsourcing.persistence import ProgrammingError
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session

from eventsourcing_sqlalchemy.errors import translate

__all__ = [
    "OpenTransaction",
    "Transaction",
    "TransactionHost",
    "current_transaction",
    "detached",
    "inside",
    "transaction_to_write",
    "undoable",
]

# Packages that call a function in a context of its own, and leave that when the function returns.
_CARRIERS: Final = frozenset({"anyio", "asgiref", "asyncio", "concurrent", "threading", "trio"})

_RECIPE: Final = (
    "Open it in the function that records, 'with recorder.transaction() as session: ...', or pass a session that you "
    "commit: save(..., session=session)."
)

# Keyed by the identity of the datastore; the entry is checked against the datastore itself. Never changed in place:
# contexts share the object.
_transactions: ContextVar[Mapping[int, OpenTransaction]] = ContextVar(
    "eventsourcing_sqlalchemy_transactions", default=MappingProxyType({})
)

# Set only to obtain tokens: a token can be reset in the context that made it, and in no copy of that context.
_probe: ContextVar[None] = ContextVar("eventsourcing_sqlalchemy_probe", default=None)


class TransactionHost(Protocol):
    """The datastore that a transaction is opened for."""

    application: str
    scoped_session: scoped_session[Session] | None

    def admit(self, *, writes: bool) -> None:
        """Raise an exception to refuse a read, or with ``writes`` a write or a commit."""

    def begin_session(self, resources: ExitStack, *, commit: bool) -> Session:
        """Return a session in a new transaction; ``resources`` closes it."""

    def committed(self, key: int) -> None:
        """Wake a table's subscriptions."""


class OpenTransaction:
    """An open transaction of a context; one that is not ``is_ours`` is ended by the user."""

    __slots__ = (
        "_process",
        "_token",
        "commit",
        "datastore",
        "has_failed_block",
        "is_ours",
        "session",
        "state",
        "wakeups",
    )

    def __init__(self, datastore: TransactionHost, session: Session, *, commit: bool, is_ours: bool = True) -> None:
        self.datastore: TransactionHost | None = datastore
        self.session = session
        self.commit = commit
        self.is_ours = is_ours
        self.has_failed_block = False
        """Whether a block that joined it ended with an exception: its changes are not undone."""
        self.wakeups: set[int] = set()
        self.state: dict[object, Any] = {}
        """What recorders remember until the transaction ends, by recorder."""
        self._token: Token[None] = _probe.set(None)
        self._process = os.getpid()

    def is_of_this_process(self) -> bool:
        """Return whether it was opened in this process, and not in its parent."""
        return self._process == os.getpid()

    def is_owned(self) -> bool:
        """Return whether the running context opened the transaction."""
        if not self.is_of_this_process():
            return False  # A fork has the same context, and must not use the connection of its parent.
        try:
            _probe.reset(self._token)
        except (ValueError, RuntimeError):
            return False
        self._token = _probe.set(None)
        return True


def current_transaction(datastore: TransactionHost) -> OpenTransaction | None:
    """Return the open transaction of a datastore that belongs to the running context, or None."""
    transaction = _known_transaction(datastore)
    return transaction if transaction is not None and transaction.is_owned() else None


def transaction_to_write(datastore: TransactionHost) -> OpenTransaction | None:
    """Return :func:`current_transaction`; raises ProgrammingError in a copy of a context with an open transaction."""
    transaction = _known_transaction(datastore)
    if transaction is None or transaction.is_owned():
        return transaction
    if transaction.is_of_this_process():
        msg = (
            f"Application {datastore.application!r} has an open transaction in the context from which this one was "
            "copied (tasks and thread pools run in copies). Events recorded here would commit without it. "
            f"{_RECIPE} To record independently of the transaction: 'with recorder.detached(): ...'."
        )
        raise ProgrammingError(msg)
    return None


@contextmanager
def detached(datastore: TransactionHost) -> Iterator[None]:
    """Run the block, and the tasks that it starts, outside of a datastore's open transaction."""
    transaction = _known_transaction(datastore)
    _set_transaction(datastore, None)
    try:
        yield
    finally:
        _set_transaction(datastore, transaction)


@contextmanager
def inside(datastore: TransactionHost, session: Session) -> Iterator[None]:
    """Run the block in the transaction of a session that the user ends, including calls without ``session``."""
    outer = _known_transaction(datastore)
    transaction = OpenTransaction(datastore, session, commit=True, is_ours=False)
    _set_transaction(datastore, transaction)
    try:
        yield
    finally:
        transaction.datastore = None
        _set_transaction(datastore, outer)


def _known_transaction(datastore: TransactionHost) -> OpenTransaction | None:
    """Return the open transaction of a datastore in the running context, its own or one of the context it copies."""
    transaction = _transactions.get().get(id(datastore))
    return transaction if transaction is not None and transaction.datastore is datastore else None


def _set_transaction(datastore: TransactionHost, transaction: OpenTransaction | None) -> None:
    """Set the open transaction of a datastore, and keep those of others: generators interleave them."""
    others = {key: other for key, other in _transactions.get().items() if key != id(datastore)}
    _transactions.set(MappingProxyType(others if transaction is None else {**others, id(datastore): transaction}))


def _check_not_left_open(frame: FrameType | None) -> None:
    """Raise ProgrammingError when the code that opens a transaction returns to code that leaves the context.

    A dependency of a web framework that is not async is a generator, which is run in a thread up to its ``yield``. The
    code that uses it runs in another thread and context, and would record outside of the transaction.
    """
    while frame is not None and (
        frame.f_code.co_flags & CO_GENERATOR or frame.f_code.co_name in ("__enter__", "enter_context")
    ):
        frame = frame.f_back
    if frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _CARRIERS:
        msg = (
            "This transaction would stay open in a context that ends here: a generator that a framework runs in a "
            f"thread opens it, and code in other contexts cannot record in it. {_RECIPE}"
        )
        raise ProgrammingError(msg)


class Transaction:
    """A context manager that yields an SQLAlchemy ``Session`` (or the scoped session that the user configured).

    The outermost one commits when its block ends without an error, if ``commit`` is true, and rolls back otherwise;
    inner ones of the same datastore join it. A scoped session is the user's: it is neither committed nor rolled back
    nor closed. Errors of SQLAlchemy that leave the block arrive as the library's exceptions.
    """

    def __init__(self, datastore: TransactionHost, *, commit: bool) -> None:
        self._datastore = datastore
        self._commit = commit
        self._open: OpenTransaction | None = None
        self._joined: OpenTransaction | None = None
        self._is_entered = False
        self._resources = ExitStack()

    def __enter__(self) -> Session:
        if self._is_entered:
            msg = "This transaction object is open already. Call recorder.transaction() again: the new one joins."
            raise ProgrammingError(msg)
        session = self._enter()
        self._is_entered = True
        return session

    def _enter(self) -> Session:
        self._datastore.admit(writes=self._commit)
        outer = self._joined = current_transaction(self._datastore)
        if outer is not None:
            if self._commit and not outer.commit:
                msg = (
                    "A transaction that commits cannot be opened inside one with commit=False. "
                    "Open the outer one without it."
                )
                raise ProgrammingError(msg)
            return outer.session
        if self._datastore.scoped_session is not None:
            return cast("Session", self._datastore.scoped_session)
        if self._commit:
            transaction_to_write(self._datastore)
            _check_not_left_open(sys._getframe(2))  # noqa: SLF001 (the caller; inspect does the same)
        with self._resources as resources:
            session = self._datastore.begin_session(resources, commit=self._commit)
            self._resources = resources.pop_all()
        self._open = OpenTransaction(self._datastore, session, commit=self._commit)
        _set_transaction(self._datastore, self._open)
        return session

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_entered = False
        transaction, self._open = self._open, None
        if transaction is None:
            self._leave_joined(exc)
            return
        if not transaction.is_of_this_process():
            # Its connection is the parent's. Collecting it would end it, too, so it is kept.
            _of_the_parent.append((transaction, self._resources.pop_all()))
            return
        is_elsewhere = not transaction.is_owned()
        if _known_transaction(self._datastore) is transaction:
            _set_transaction(self._datastore, None)
        transaction.datastore = None
        commits = exc is None and transaction.commit and not is_elsewhere
        self._end(transaction.session, exc, commits=commits)
        if exc is None and transaction.commit and is_elsewhere:
            msg = (
                "The transaction was opened in one context and ended in another. Events recorded in between may not "
                f"have been part of it, and it was rolled back. {_RECIPE}"
            )
            raise ProgrammingError(msg)
        if commits:
            for key in transaction.wakeups:
                self._datastore.committed(key)
        if isinstance(exc, SQLAlchemyError):
            raise translate(exc) from exc

    def _end(self, session: Session, exc: BaseException | None, *, commits: bool) -> None:
        with self._resources:
            try:
                if commits:
                    self._datastore.admit(writes=True)
                    session.commit()
                else:
                    session.rollback()
            except SQLAlchemyError as error:
                if exc is None:
                    raise translate(error) from error
                # The block's own error says more than a rollback that fails on the same broken connection.

    def _leave_joined(self, exc: BaseException | None) -> None:
        joined, self._joined = self._joined, None
        if exc is not None and joined is not None:
            joined.has_failed_block = True
        if isinstance(exc, SQLAlchemyError):
            raise translate(exc) from exc
        if exc is None and joined is not None and joined.datastore is None:
            msg = (
                "The outer transaction has ended before this block: later changes are not committed. "
                "End this block first."
            )
            raise ProgrammingError(msg)


@contextmanager
def undoable(connection: Connection) -> Iterator[None]:
    """Undo the block's changes on a connection if it raises an error, and raise that error, even when the savepoint no
    longer exists: a database may end the whole transaction, for example when the disk is full.
    """
    failure: Exception | None = None
    try:
        with connection.begin_nested():
            try:
                yield
            except Exception as error:
                failure = error
                raise
    except Exception:
        if failure is not None:
            raise failure from None
        raise


_of_the_parent: list[object] = []
