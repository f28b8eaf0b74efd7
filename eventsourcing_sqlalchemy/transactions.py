"""Transactions that a user opens around events and other changes, and who may use them.

A transaction belongs to the datastore it was opened for and to the context that opened it. Calls made in that context
through the same datastore join it; another thread, another task, a copied context (as ``asyncio.to_thread`` makes) and
every other application never do: they get transactions of their own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, cast

from eventsourcing.persistence import ProgrammingError
from sqlalchemy.exc import SQLAlchemyError

from eventsourcing_sqlalchemy.errors import translate

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore

__all__ = ["OpenTransaction", "Transaction", "current_transaction"]

# Keyed by the identity of the datastore; the entry is checked against the datastore itself. Never changed in place:
# contexts share the object.
_transactions: ContextVar[Mapping[int, OpenTransaction]] = ContextVar(
    "eventsourcing_sqlalchemy_transactions", default=MappingProxyType({})
)

# Set only to obtain tokens: a token can be reset in the context that made it, and in no copy of that context.
_probe: ContextVar[None] = ContextVar("eventsourcing_sqlalchemy_probe", default=None)


class OpenTransaction:
    """An open transaction, as the context that opened it knows it."""

    __slots__ = ("_process", "_token", "commit", "datastore", "session", "wakeups")

    def __init__(self, datastore: SQLAlchemyDatastore, session: Session, *, commit: bool) -> None:
        self.datastore: SQLAlchemyDatastore | None = datastore
        self.session = session
        self.commit = commit
        self.wakeups: set[int] = set()
        self._token: Token[None] = _probe.set(None)
        self._process = os.getpid()

    def is_owned(self) -> bool:
        """Return whether the context that opened the transaction is the one that asks."""
        if self._process != os.getpid():
            return False  # A fork has the same context, and must not use the connection of its parent.
        try:
            _probe.reset(self._token)
        except (ValueError, RuntimeError):
            return False
        self._token = _probe.set(None)
        return True


def current_transaction(datastore: SQLAlchemyDatastore) -> OpenTransaction | None:
    """Return the open transaction of a datastore that belongs to the running context, or None."""
    transaction = _transactions.get().get(id(datastore))
    if transaction is None or transaction.datastore is not datastore or not transaction.is_owned():
        return None
    return transaction


class Transaction:
    """A context manager that yields an SQLAlchemy ``Session`` (or the scoped session that the user configured).

    The outermost one commits when its block ends without an error, if ``commit`` is true, and rolls back otherwise;
    inner ones of the same datastore join it. A scoped session is the user's: it is neither committed nor rolled back
    nor closed. Errors of SQLAlchemy that leave the block arrive as the library's exceptions.
    """

    def __init__(self, datastore: SQLAlchemyDatastore, *, commit: bool) -> None:
        self._datastore = datastore
        self._commit = commit
        self._open: OpenTransaction | None = None
        self._resources = ExitStack()

    def __enter__(self) -> Session:
        outer = current_transaction(self._datastore)
        if outer is not None:
            if self._commit and not outer.commit:
                msg = "A transaction that commits cannot be opened inside of one with commit=False."
                raise ProgrammingError(msg)
            return outer.session
        if self._datastore.scoped_session is not None:
            return cast("Session", self._datastore.scoped_session)
        with self._resources as resources:
            session = self._datastore.begin_session(resources, commit=self._commit)
            self._resources = resources.pop_all()
        self._open = OpenTransaction(self._datastore, session, commit=self._commit)
        _transactions.set(MappingProxyType({**_transactions.get(), id(self._datastore): self._open}))
        return session

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        transaction, self._open = self._open, None
        if transaction is None:
            if isinstance(exc, SQLAlchemyError):
                raise translate(exc) from exc
            return
        # Others may have been opened or closed since, in any order (generators do that): take out this one and nothing
        # else.
        transaction.datastore = None
        remaining = {key: other for key, other in _transactions.get().items() if other is not transaction}
        _transactions.set(MappingProxyType(remaining))
        with self._resources:
            try:
                if exc is None and transaction.commit:
                    transaction.session.commit()
                else:
                    transaction.session.rollback()
            except SQLAlchemyError as error:
                if exc is None:
                    raise translate(error) from error
                # The block's own error says more than a rollback that fails on the same broken connection.
        if exc is None and transaction.commit:
            for key in transaction.wakeups:
                self._datastore.committed(key)
        if isinstance(exc, SQLAlchemyError):
            raise translate(exc) from exc
