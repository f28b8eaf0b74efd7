"""Prepare, check out, reset and check in an engine's connections.

SQLAlchemy wraps what leaves its pool into a proxy with a finalizer, for users who forget to close it, and runs events.
That takes longer than the rest of a short call, and a call that always checks its connection in needs none of it. Users
get SQLAlchemy's own proxies; so do our calls where another listener has registered for the pool's events.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from eventsourcing.persistence import InterfaceError
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import Pool, PoolProxiedConnection, QueuePool

from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.engines.waits import WaitCountingPool, Waits
from eventsourcing_sqlalchemy.observing import PoolStatus
from eventsourcing_sqlalchemy.settings import mask

__all__ = ["ConnectionPool", "PooledConnection"]

# Marks a checkout of our own, which leaves no settings behind.
_OURS: Final = "eventsourcing_sqlalchemy"

# A connection's state when it was new.
_INITIAL_STATE: Final = "eventsourcing_sqlalchemy_initial_state"

# The applications that a connection has served.
_USERS: Final = "eventsourcing_sqlalchemy_users"
_MAX_USERS: Final = 1000

# Pools of a parent process, in a child. Never used again, and never collected.
_of_the_parent: list[Pool] = []


class PooledConnection:
    """A connection out of the pool, with the part of SQLAlchemy's proxy that calls of ours use."""

    __slots__ = ("_connection_record", "_is_checked_in", "_owner", "_pool", "dbapi_connection")

    def __init__(self, owner: ConnectionPool, pool: Pool, record: Any) -> None:
        self._owner = owner
        self._pool = pool
        self._connection_record = record
        self.dbapi_connection: Any = None
        self._is_checked_in = False

    def __del__(self) -> None:
        # Interrupted outside of every `try`, where Python looks for signals: nothing else would ever check it in.
        if not getattr(self, "_is_checked_in", True):
            self._is_checked_in = True
            try:
                self.invalidate()
            finally:
                self._pool._do_return_conn(self._connection_record)  # noqa: SLF001 (as the module says)

    @property
    def is_valid(self) -> bool:
        """Whether there is a connection."""
        return self.dbapi_connection is not None

    @property
    def info(self) -> dict[Any, Any]:
        """Data kept with the connection until it is closed."""
        info: dict[Any, Any] = self._connection_record.info
        return info

    def invalidate(self, error: BaseException | None = None) -> None:
        """Close the connection; its place in the pool is free for a new one."""
        self._connection_record.invalidate(error)
        self.dbapi_connection = None

    def close(self) -> None:
        """Check the connection in; to be called once."""
        try:
            if self.dbapi_connection is not None:
                self._owner._check_in(self.dbapi_connection, self._connection_record)  # noqa: SLF001 (of this module)
        except Exception as error:  # noqa: BLE001 (as SQLAlchemy does)
            # The call has its own result or error, which says more; an open transaction ends with the connection.
            self.invalidate(error)
        except BaseException as error:
            self.invalidate(error)
            raise
        finally:
            self._is_checked_in = True
            self._pool._do_return_conn(self._connection_record)  # noqa: SLF001 (as the module says)
            if self._owner._is_disposed:  # noqa: SLF001 (of this module)
                # Another thread may have emptied the pool just before: nothing else would close the connection.
                self._pool.dispose()


class ConnectionPool:
    """The connections of one engine. Safe to use from many threads.

    The pool of an engine that the user made gets no listeners, and its connections keep their settings.
    """

    def __init__(self, engine: Engine, dialect: Dialect, settings: EngineSettings, *, is_ours: bool) -> None:
        self._engine = engine
        self._dialect = dialect
        self._settings = settings
        self._is_ours = is_ours
        self._is_disposed = False
        self._is_unsafe_after_fork = False
        # By identity: the connections that are open, and those that a fork has made unusable.
        self._open: set[int] = set()
        self._outdated: set[int] = set()

    def register_events(self, *, has_creator: bool, keeps_encoding: bool) -> None:
        """Register for the events of an engine of ours; ``keeps_encoding`` means that the user chose the encoding."""
        engine = self._engine
        self._has_creator = has_creator
        self._keeps_encoding = keeps_encoding
        event.listen(engine, "do_connect", self._connecting)
        event.listen(engine, "connect", self._opened, insert=True)
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "close", self._closed)
        listeners_of_all_pools = self._count_events(engine.pool)
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine.pool, "reset", self._reset)
        event.listen(engine, "checkin", self._checked_in)
        self._own_events = self._count_events(engine.pool) - listeners_of_all_pools
        self._own_listeners = self._count_listeners() - len(engine.pool.dispatch.connect.parent_listeners)

    # -- events --

    def _connecting(self, *_: Any) -> None:
        if self._is_unsafe_after_fork:
            msg = (
                f"A connection to {mask(self._engine.url)} was in use when this process was forked, and the database "
                "library still holds the parent's lock state: data could be lost. Fork while nothing uses the "
                "database, or start processes with the method 'spawn'."
            )
            raise InterfaceError(msg)

    def _opened(self, connection: Any, record: Any) -> None:
        self._dialect.opened(connection, keeps_encoding=self._keeps_encoding)

    def _connected(self, connection: Any, record: Any) -> None:
        self._open.add(id(connection))
        self._dialect.connected(connection, self._settings)

    def _closed(self, connection: Any, record: Any) -> None:
        self._open.discard(id(connection))
        self._outdated.discard(id(connection))

    def _checked_out(self, connection: Any, record: Any, proxy: Any) -> None:
        # A connection that the server has closed while it was idle is recognised here, for the price of looking at the
        # socket, and a new one takes its place: the call never sees the failure.
        try:
            if self._dialect.is_stale(connection):
                self._engine.dialect.do_ping(connection)
            if record is not None and _INITIAL_STATE not in record.info:
                is_prepared = self._has_creator or self._count_listeners() != self._own_listeners
                record.info[_INITIAL_STATE] = self._dialect.remember(connection, is_prepared=is_prepared)
        except Exception as error:
            msg = "The server closed the connection."
            raise InvalidatePoolError(msg) from error

    def _reset(self, connection: Any, record: Any, state: Any) -> None:
        # A transaction that is left open here would swallow what the next user of the connection writes.
        if record is None:
            return  # taken out of the pool: it is closed next
        if record.info.pop(_OURS, False):
            if self._dialect.in_transaction(connection):
                self._dialect.rollback(connection)
        elif not state.terminate_only:
            self._dialect.reset(connection, record.info.get(_INITIAL_STATE))

    def _checked_in(self, connection: Any, record: Any) -> None:
        if connection is None:
            return
        if self._is_disposed or id(connection) in self._outdated:
            record.invalidate()
        else:
            self._dialect.checked_in(connection)

    @staticmethod
    def _count_events(pool: Pool) -> int:
        events = pool.dispatch
        return len(events.checkout) + len(events.checkin) + len(events.reset)

    def _count_listeners(self) -> int:
        """Return how many listeners prepare connections: of this engine, and of all engines."""
        return len(self._engine.pool.dispatch.connect) + len(self._engine.dialect.dispatch.do_connect)

    # -- checkout --

    def check_out(self) -> PoolProxiedConnection | PooledConnection:
        """Return a connection, which the caller closes; raises errors of SQLAlchemy and the driver."""
        if not self._is_ours:
            return self._check_out_of_user()
        pool = self._engine.pool
        pings = pool._pre_ping  # noqa: SLF001 (it may be an option of the user's)
        if not pings and self._count_events(pool) == self._own_events:
            return self._check_out_directly(pool)
        proxy = self._engine.raw_connection()
        proxy.info[_OURS] = True
        return proxy

    def _check_out_of_user(self) -> PoolProxiedConnection:
        proxy = self._engine.raw_connection()
        while not self._is_usable(proxy):
            # No event of ours checks the connections of a user's pool.
            proxy.invalidate()
            proxy.close()
            proxy = self._engine.raw_connection()
        return proxy

    def _is_usable(self, proxy: PoolProxiedConnection) -> bool:
        try:
            self._checked_out(proxy.dbapi_connection, None, proxy)
        except InvalidatePoolError:
            return False
        return True

    def _check_out_directly(self, pool: Pool) -> PooledConnection:
        record: Any = pool._do_get()  # noqa: SLF001 (as the module says)
        try:
            connection = PooledConnection(self, pool, record)
        except BaseException:
            pool._do_return_conn(record)  # noqa: SLF001 (as above)
            raise
        try:
            connection.dbapi_connection = record.get_connection()
            try:
                self._checked_out(connection.dbapi_connection, record, connection)
            except InvalidatePoolError as error:
                # All connections of the pool are as old: each is replaced before its next use.
                pool._invalidate(connection, error, _checkin=False)  # type: ignore[arg-type]  # noqa: SLF001 (as above)
                connection.invalidate(error)
                connection.dbapi_connection = record.get_connection()
                self._checked_out(connection.dbapi_connection, record, connection)
        except BaseException as error:
            connection.invalidate(error)
            connection.close()
            raise
        return connection

    def _check_in(self, connection: Any, record: Any) -> None:
        """Do for a connection that was checked out directly what the events do for others."""
        if self._dialect.in_transaction(connection):
            self._dialect.rollback(connection)
        if self._is_disposed or id(connection) in self._outdated:
            record.invalidate()

    def status(self) -> PoolStatus | None:
        """Return the state of the connections; None unless the pool is of SQLAlchemy's default kind."""
        pool = self._engine.pool
        if not isinstance(pool, QueuePool):
            return None
        waits = pool.waits if isinstance(pool, WaitCountingPool) else Waits()
        overflow = pool._max_overflow  # noqa: SLF001 (there is no public way to read it)
        return PoolStatus(
            in_use=pool.checkedout(),
            idle=pool.checkedin(),
            limit=-1 if overflow < 0 else pool.size() + overflow,
            waits=waits.count,
            wait_seconds=waits.seconds,
            timeouts=waits.timeouts,
        )

    def count_use(self, connection: PoolProxiedConnection | PooledConnection, user: Hashable) -> None:
        """Close a connection that has served very many applications: its server process caches tens of kilobytes for
        each of their tables until it ends.
        """
        users = connection.info.setdefault(_USERS, set())
        users.add(user)
        if len(users) > _MAX_USERS:
            connection.invalidate()

    def invalidate_all(
        self, error: Exception | None = None, connection: PoolProxiedConnection | PooledConnection | None = None
    ) -> None:
        """Replace all present connections before their next use, as SQLAlchemy does for errors that it knows; close
        ``connection`` now.
        """
        self._engine.pool._invalidate(connection, error)  # type: ignore[arg-type]  # noqa: SLF001 (SQLAlchemy's own connections call it)

    # -- end --

    def dispose(self) -> None:
        """Close all idle connections now, and those in use when they are checked in; not those of a user's engine."""
        if self._is_ours:
            self._is_disposed = True
            self._engine.dispose()

    def before_fork(self) -> None:
        """Close all idle connections: the database's library does not notice that it is in another process."""
        self._engine.dispose()
        # Connections in use belong to the previous pool, which would keep them open.
        self._outdated = set(self._open)

    def after_fork(self) -> None:
        """Leave the parent's connections alone, without closing them, in a child process."""
        self._is_unsafe_after_fork = bool(self._open) and not self._dialect.is_server
        # Kept, because collecting a connection may close it, and with it what the parent holds.
        _of_the_parent.append(self._engine.pool)
        self._engine.dispose(close=False)
