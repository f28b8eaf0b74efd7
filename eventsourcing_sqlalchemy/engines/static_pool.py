"""Exclusive use of the one connection of a ``StaticPool``, which hands it to all threads at once.

Tests use such a pool for an in-memory database. Without a lock, one user would commit or roll back another one's
transaction. So each of our calls, and each of our transactions, has the connection for itself; a statement of a session
of the user's engine waits for them, and they wait for that session's transaction to end. Two sessions of the user are
not kept apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any, Final

from eventsourcing.persistence import InternalError, NotSupportedError, OperationalError
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import AssertionPool, SingletonThreadPool, StaticPool

from eventsourcing_sqlalchemy.background import pause
from eventsourcing_sqlalchemy.dialects.base import Dialect

__all__ = ["HOLDER", "StaticPoolLock", "lock_static_pool"]

HOLDER: Final = "eventsourcing_holder"
"""The execution option that marks a session's connection as the holder of the lock."""

# How often to check whether a user's transaction has ended: no event tells. Seconds.
_PAUSE: Final = 0.002

# These hand one connection to several threads or callers at a time.
_SHARING_POOLS: Final = (StaticPool, SingletonThreadPool, AssertionPool)


def lock_static_pool(engine: Engine, dialect: Dialect, timeout: float) -> StaticPoolLock | None:
    """Return the lock of an engine's one connection, or None where the pool gives each user another connection.

    Raises NotSupportedError for a pool that shares a connection which cannot be locked.
    """
    if not isinstance(engine.pool, _SHARING_POOLS):
        return None
    if isinstance(engine.pool, StaticPool) and not dialect.outlives_connections(engine.url):
        return StaticPoolLock(engine, dialect, timeout)
    msg = (
        f"A {type(engine.pool).__name__} shares one connection among concurrent users, and one would commit or roll "
        "back another's writes. Create the engine with poolclass=QueuePool or NullPool (for an in-memory database with "
        "StaticPool, or with QueuePool, pool_size=1 and max_overflow=0), or use a scoped session."
    )
    raise NotSupportedError(msg)


class StaticPoolLock:
    """The lock of the one connection of a user's engine. Safe to use from many threads."""

    def __init__(self, engine: Engine, dialect: Dialect, timeout: float) -> None:
        self._engine = engine
        self._dialect = dialect
        self._timeout = timeout
        # Not an RLock: it may be released in another thread than the one that acquired it.
        self._lock = Lock()
        self._holder: object | None = None
        self._thread: int | None = None
        self._listeners: list[tuple[Any, str, Callable[..., Any]]] = [
            (engine, "do_execute", self._execute),
            (engine, "do_executemany", self._execute_many),
            (engine, "do_execute_no_params", self._execute_without_parameters),
            (engine, "commit", self._commits),
            (engine, "rollback", self._rolls_back),
            (engine.pool, "reset", self._resets),
        ]
        for target, name, listener in self._listeners:
            event.listen(target, name, listener)

    def close(self) -> None:
        """Leave the engine as it was."""
        for target, name, listener in self._listeners:
            event.remove(target, name, listener)

    def after_fork(self) -> None:
        """Unlock in a child process, where the holder does not exist."""
        self._lock = Lock()
        self._holder = self._thread = None

    @contextmanager
    def take(self) -> Iterator[object]:
        """Hold the connection for the block, and yield the value of :data:`HOLDER` for a session in it.

        Raises OperationalError when others hold it for longer than the timeout.
        """
        deadline = time.monotonic() + self._timeout
        self._acquire(deadline)
        while self._is_in_transaction():
            self._lock.release()
            pause(_PAUSE)
            if time.monotonic() > deadline:
                raise self._in_use()
            self._acquire(deadline)
        self._holder, self._thread = object(), get_ident()
        try:
            yield self._holder
        finally:
            self._holder = self._thread = None
            self._lock.release()

    def _acquire(self, deadline: float) -> None:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._in_use()

    def _in_use(self) -> OperationalError:
        msg = (
            f"The one connection of the engine's StaticPool was in a transaction of another user for {self._timeout:g} "
            "s (SQLALCHEMY_LOCK_TIMEOUT). End that transaction first, or record the events in its session: session=..."
        )
        return OperationalError(msg)

    def _is_in_transaction(self) -> bool:
        pool: Any = self._engine.pool
        return self._dialect.in_transaction(pool.connection.dbapi_connection)

    # -- what sessions of the engine do --

    @contextmanager
    def _briefly(self, connection: Connection) -> Iterator[None]:
        if self._holder is not None and connection.get_execution_options().get(HOLDER) is self._holder:
            self._thread = get_ident()  # its end, which follows, is in the same thread
            yield
            return
        self._acquire(time.monotonic() + self._timeout)
        try:
            yield
        finally:
            self._lock.release()

    def _execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        with self._briefly(context.root_connection):
            context.dialect.do_execute(cursor, statement, parameters, context)
        return True

    def _execute_many(self, cursor: Any, statement: str, parameters: Sequence[Any], context: Any) -> bool:
        with self._briefly(context.root_connection):
            context.dialect.do_executemany(cursor, statement, parameters, context)
        return True

    def _execute_without_parameters(self, cursor: Any, statement: str, context: Any) -> bool:
        with self._briefly(context.root_connection):
            context.dialect.do_execute_no_params(cursor, statement, context)
        return True

    def _commits(self, connection: Connection) -> None:
        with self._briefly(connection):
            is_ours = connection.get_execution_options().get(HOLDER) is not None
            if is_ours and not self._is_in_transaction():
                msg = (
                    "Another session on the engine's StaticPool has ended this transaction. "
                    "Use only the session of the block."
                )
                raise InternalError(msg)

    def _rolls_back(self, connection: Connection) -> None:
        if self._holder is not None and connection.get_execution_options().get(HOLDER) is self._holder:
            self._thread = get_ident()
        self._wait_before_rollback()

    def _resets(self, connection: Any, record: Any, state: Any) -> None:
        self._wait_before_rollback()

    def _wait_before_rollback(self) -> None:
        """Wait until no other thread holds the connection: a rollback follows, which cannot be prevented.

        Raises nothing, because the pool would close the connection, and with it the database. After a timeout, the
        holder's commit detects the rollback.
        """
        if self._thread != get_ident() and self._lock.acquire(timeout=self._timeout):
            self._lock.release()
