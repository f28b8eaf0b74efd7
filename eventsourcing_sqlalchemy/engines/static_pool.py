"""Turns on the one connection of a ``StaticPool``, which hands it to everybody at once.

It is what tests use for a database in memory. What one user begins there, another one would commit or roll back. So
each of our calls, and each of our transactions, has the connection for itself; sessions of the user's engine wait for
their next statement. Calls of ours wait until a transaction of such a session has ended. Users' sessions among
themselves are not kept apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, Final

from eventsourcing.persistence import InternalError, NotSupportedError, OperationalError
from sqlalchemy import event
from sqlalchemy.pool import AssertionPool, SingletonThreadPool, StaticPool

from eventsourcing_sqlalchemy.background import pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection, Engine

    from eventsourcing_sqlalchemy.dialects.base import Dialect

__all__ = ["TURN", "Worker", "turns_on"]

TURN: Final = "eventsourcing_turn"
"""The execution option of the connection of a session whose turn it is."""

# How often to look whether a transaction of a user has ended: nothing tells. Seconds.
_PAUSE: Final = 0.002

# Hand one connection to several threads or callers at a time, where one would end the transaction of another.
_SHARING_POOLS: Final = (StaticPool, SingletonThreadPool, AssertionPool)


def turns_on(engine: Engine, dialect: Dialect, timeout: float) -> Worker | None:
    """Return the turns on the connection of an engine, or None where its pool gives each user another one.

    Raises NotSupportedError for a pool whose users share a connection and cannot take turns.
    """
    if not isinstance(engine.pool, _SHARING_POOLS):
        return None
    if isinstance(engine.pool, StaticPool) and not dialect.outlives_connections(engine.url):
        return Worker(engine, dialect, timeout)
    msg = (
        f"A {type(engine.pool).__name__} hands one connection to several users at a time, and one would commit or roll "
        "back what another writes. Make the engine with poolclass=QueuePool or NullPool (for a database in memory with "
        "StaticPool, or with QueuePool, pool_size=1 and max_overflow=0), or use a scoped session."
    )
    raise NotSupportedError(msg)


class Worker:
    """The turns on the connection of an engine that the user made. Safe to use from many threads."""

    def __init__(self, engine: Engine, dialect: Dialect, timeout: float) -> None:
        self._engine = engine
        self._dialect = dialect
        self._timeout = timeout
        # A turn may end in another thread than the one that it began in.
        self._lock = Lock()
        self._turn: object | None = None
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
        """Forget, in a child process, whose turn it was in the parent."""
        self._lock = Lock()
        self._turn = self._thread = None

    @contextmanager
    def take(self) -> Iterator[object]:
        """Have the connection for the block, and yield what :data:`TURN` has to be for a session in it.

        Raises OperationalError when others use it for longer than the timeout.
        """
        deadline = time.monotonic() + self._timeout
        self._acquire(deadline)
        while self._is_in_transaction():
            self._lock.release()
            pause(_PAUSE)
            if time.monotonic() > deadline:
                raise self._in_use()
            self._acquire(deadline)
        self._turn, self._thread = object(), get_ident()
        try:
            yield self._turn
        finally:
            self._turn = self._thread = None
            self._lock.release()

    def _acquire(self, deadline: float) -> None:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._in_use()

    def _in_use(self) -> OperationalError:
        msg = (
            f"The one connection of the engine's StaticPool was in a transaction of another user for {self._timeout:g} "
            "s (SQLALCHEMY_LOCK_TIMEOUT). End that first, or record the events in its session: session=..."
        )
        return OperationalError(msg)

    def _is_in_transaction(self) -> bool:
        pool: Any = self._engine.pool
        return self._dialect.in_transaction(pool.connection.dbapi_connection)

    # -- what sessions of the engine do --

    @contextmanager
    def _between_turns(self, connection: Connection) -> Iterator[None]:
        if self._turn is not None and connection.get_execution_options().get(TURN) is self._turn:
            self._thread = get_ident()  # its end, which follows, is in the same thread
            yield
            return
        self._acquire(time.monotonic() + self._timeout)
        try:
            yield
        finally:
            self._lock.release()

    def _execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        with self._between_turns(context.root_connection):
            context.dialect.do_execute(cursor, statement, parameters, context)
        return True

    def _execute_many(self, cursor: Any, statement: str, parameters: Sequence[Any], context: Any) -> bool:
        with self._between_turns(context.root_connection):
            context.dialect.do_executemany(cursor, statement, parameters, context)
        return True

    def _execute_without_parameters(self, cursor: Any, statement: str, context: Any) -> bool:
        with self._between_turns(context.root_connection):
            context.dialect.do_execute_no_params(cursor, statement, context)
        return True

    def _commits(self, connection: Connection) -> None:
        with self._between_turns(connection):
            is_ours = connection.get_execution_options().get(TURN) is not None
            if is_ours and not self._is_in_transaction():
                msg = "Another user of the engine's StaticPool has ended this transaction. Nothing more is committed."
                raise InternalError(msg)

    def _rolls_back(self, connection: Connection) -> None:
        if self._turn is not None and connection.get_execution_options().get(TURN) is self._turn:
            self._thread = get_ident()
        self._wait_before_rollback()

    def _resets(self, connection: Any, record: Any, state: Any) -> None:
        self._wait_before_rollback()

    def _wait_before_rollback(self) -> None:
        """Wait for the end of a turn of others: what follows, and cannot be kept from it, is a rollback.

        Raises nothing, because the pool would close the connection, and with it the database. If the turn does not end,
        its commit finds out.
        """
        if self._thread != get_ident() and self._lock.acquire(timeout=self._timeout):
            self._lock.release()
