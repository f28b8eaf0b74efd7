"""An engine that applications share: how it is made, how its pool behaves, and how a statement of ours runs on it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa
from eventsourcing.persistence import InterfaceError, OperationalError, PersistenceError
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import Pool, QueuePool, StaticPool

from eventsourcing_sqlalchemy.dialects import dialect_for, dialect_of
from eventsourcing_sqlalchemy.engines.executors import CursorExecutor
from eventsourcing_sqlalchemy.engines.pool import PooledConnection, check_out, count_use
from eventsourcing_sqlalchemy.engines.static_pool import turns_on
from eventsourcing_sqlalchemy.engines.table_cache import Catalog
from eventsourcing_sqlalchemy.errors import (
    READ_ONLY,
    ConnectionLostError,
    SettingsError,
    cause_of,
    sqlstate,
    translate,
)
from eventsourcing_sqlalchemy.notifications.wakeups import Wakeups
from eventsourcing_sqlalchemy.options import DEFAULTS, EngineSettings
from eventsourcing_sqlalchemy.settings import mask

if TYPE_CHECKING:
    from sqlalchemy.pool import PoolProxiedConnection

    from eventsourcing_sqlalchemy.dialects.base import Dialect
    from eventsourcing_sqlalchemy.dialects.protocols import Executor

__all__ = ["EngineSource", "SharedEngine"]

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, repr=False)  # The URL and the options may hold secrets.
class EngineSource:
    """Where an engine comes from: an engine that the user made and owns, or a URL, with a creator of connections or
    without.
    """

    url: URL | None = None
    creator: Callable[[], Any] | None = None
    engine: Engine | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def dialect(self) -> Dialect:
        """Return a new dialect; raises NotSupportedError for a database or a driver that does not work."""
        if self.engine is not None:
            return dialect_of(self.engine.dialect)
        assert self.url is not None
        return dialect_for(self.url.get_backend_name(), self.url.get_driver_name())

    def key(self) -> Hashable:
        """Return what makes the database: two creators with one URL are two databases."""
        if self.engine is not None:
            return self.engine
        assert self.url is not None
        identity = self.dialect().identity(self.url)
        return object() if self.options or identity is None else (identity, self.creator)


class SharedEngine:
    """An engine with its dialect and its wake-ups.

    ``public`` is what sessions and users get: real transactions. The private side, on the same pool, commits every
    statement by itself.
    """

    def __init__(self, source: EngineSource, settings: EngineSettings, application: str) -> None:
        self.settings = settings.or_else(DEFAULTS)
        self.asked_by = {variable: application for variable, _ in settings.asked()}
        self.is_ours = source.engine is None
        self.is_made_by_url = self.is_ours and source.creator is None
        self._is_disposed = False
        self._is_unsafe_after_fork = False
        self._open: set[int] = set()
        self._outdated: set[int] = set()
        self.dialect = source.dialect()
        if source.engine is not None:
            self.engine = self.public = source.engine
        else:
            assert source.url is not None
            self.engine = self._create(source.url, source.creator, dict(source.options))
            self.public = self.dialect.public_engine(self.engine)
        self._turns = turns_on(self.engine, self.dialect, self.settings.lock_timeout or 0.0)
        self.outlives_connections = self.dialect.outlives_connections(self.engine.url)
        self.leases = 0
        self.wakeups = Wakeups(self)
        self.catalog = Catalog(can_read_all=self.is_ours and self.dialect.reads_ahead)

    def __str__(self) -> str:
        return mask(self.engine.url)

    def _create(self, url: URL, creator: Callable[[], Any] | None, options: dict[str, Any]) -> Engine:
        ours = self.dialect.engine_options(url, self.settings)
        if options.get("poolclass") is StaticPool and not self.dialect.outlives_connections(url):
            del options["poolclass"]  # our own pool has one connection there, too, for one user at a time
        pool_class = options.get("poolclass")
        connect_args = {**ours.pop("connect_args", {}), **options.pop("connect_args", {})}
        self._keeps_encoding = "client_encoding" in url.query or "client_encoding" in options
        if self._keeps_encoding:
            connect_args.pop("client_encoding", None)
        if pool_class is not None and not issubclass(pool_class, QueuePool):
            for name in ("pool_size", "max_overflow", "pool_timeout", "pool_use_lifo"):
                ours.pop(name, None)
        if creator is not None:
            options["creator"] = creator
        elif connect_args:
            options["connect_args"] = connect_args
        # We end what is left of a transaction ourselves, see _reset: leaving it to the pool costs a round trip for
        # every statement.
        fixed = {"pool_reset_on_return": None, "isolation_level": ours.pop("isolation_level"), "hide_parameters": True}
        try:
            engine = sa.create_engine(url, **{**ours, **options, **fixed})
        except ModuleNotFoundError as error:
            driver = self.dialect.driver
            msg = f"The driver {driver!r} of {mask(url)} is not installed. Install it: {self.dialect.drivers[driver]}"
            raise SettingsError(msg, variable="SQLALCHEMY_URL") from error
        except Exception as error:  # noqa: BLE001 (what a driver says of its arguments)
            raise translate(error, mask(url)) from None
        event.listen(engine, "do_connect", self._connecting)
        event.listen(engine, "connect", self._opened, insert=True)
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "close", self._closed)
        event.listen(engine, "handle_error", self._failed)
        of_others = self._count_events(engine.pool)  # who listens to all pools
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine.pool, "reset", self._reset)
        event.listen(engine, "checkin", self._checked_in)
        self._own_events = self._count_events(engine.pool) - of_others
        self._has_creator = creator is not None
        self._own_listeners = self._count_listeners(engine) - len(engine.pool.dispatch.connect.parent_listeners)
        return engine

    # -- events of the pool --

    def _connecting(self, *_: Any) -> None:
        if self._is_unsafe_after_fork:
            msg = (
                f"A connection to {self} was in use when this process was forked, and the database's library keeps "
                "what it knows of the parent's locks: data could be lost. Fork while nothing uses the database, or "
                "start processes with the method 'spawn'."
            )
            raise InterfaceError(msg)

    def _opened(self, connection: Any, record: Any) -> None:
        self.dialect.opened(connection, keeps_encoding=self._keeps_encoding)

    def _connected(self, connection: Any, record: Any) -> None:
        self._open.add(id(connection))
        self.dialect.connected(connection, self.settings)

    def _closed(self, connection: Any, record: Any) -> None:
        self._open.discard(id(connection))
        self._outdated.discard(id(connection))

    def _failed(self, context: sa.engine.ExceptionContext) -> None:
        # What a session has run. Only its author can run it again; the next session gets a new connection.
        if sqlstate(context.original_exception) == READ_ONLY:
            self.leave_server()

    def _checked_out(self, connection: Any, record: Any, proxy: Any) -> None:
        # A connection that the server has closed while it was idle is recognised here, for the price of looking at the
        # socket, and a new one takes its place: the call never sees the failure.
        try:
            if self.dialect.is_stale(connection):
                self.engine.dialect.do_ping(connection)
            if record is not None and _AS_NEW not in record.info:
                is_prepared = self._has_creator or self._count_listeners(self.engine) != self._own_listeners
                record.info[_AS_NEW] = self.dialect.remember(connection, is_prepared=is_prepared)
        except Exception as error:
            msg = "The server closed the connection."
            raise InvalidatePoolError(msg) from error

    def _reset(self, connection: Any, record: Any, state: Any) -> None:
        # A transaction that is left open here would swallow what the next user of the connection writes.
        if record is None:
            return  # taken out of the pool: it is closed next
        if record.info.pop(_OURS, False):
            if self.dialect.in_transaction(connection):
                self.dialect.rollback(connection)
        elif not state.terminate_only:
            self.dialect.reset(connection, record.info.get(_AS_NEW))

    def _checked_in(self, connection: Any, record: Any) -> None:
        if connection is None:
            return
        if self._is_disposed or id(connection) in self._outdated:
            record.invalidate()
        else:
            self.dialect.checked_in(connection)

    @staticmethod
    def _count_events(pool: Pool) -> int:
        events = pool.dispatch
        return len(events.checkout) + len(events.checkin) + len(events.reset)

    @staticmethod
    def _count_listeners(engine: Engine) -> int:
        """Return how many prepare connections: of this engine, and of all engines."""
        return len(engine.pool.dispatch.connect) + len(engine.dialect.dispatch.do_connect)

    def _check_in(self, connection: Any, record: Any) -> None:
        """Do for a borrowed connection what the events do for others."""
        if self.dialect.in_transaction(connection):
            self.dialect.rollback(connection)
        if self._is_disposed or id(connection) in self._outdated:
            record.invalidate()

    # -- use --

    def turn(self) -> AbstractContextManager[object]:
        """Return a context that has the connection of a StaticPool for itself, and yields the value for ``TURN``."""
        return nullcontext() if self._turns is None else self._turns.take()

    def run(self, work: Callable[[Executor], _T], caller: Hashable = None) -> _T:
        """Call ``work`` with an executor on a pooled connection that commits every statement by itself, and return its
        result; ``caller`` stands for an application, of which a connection serves a limited number.

        Work that a read-only server refuses is done again, once, on a new connection: after a fail-over, that leads to
        another server.

        Raises ConnectionLostError when it breaks, OperationalError when none is free, and what ``work`` raises.
        """
        if self._turns is not None:
            with self._turns.take():
                return self._run(work, caller)
        try:
            return self._run(work, caller)
        except Exception as error:
            if sqlstate(error) != READ_ONLY:
                raise
        return self._run(work, caller)

    def _run(self, work: Callable[[Executor], _T], caller: Hashable) -> _T:
        proxy = self._check_out()
        try:
            if self.is_ours:
                result = work(CursorExecutor(self.dialect, proxy.dbapi_connection))
                if caller is not None and self.dialect.remembers_tables:
                    count_use(proxy, caller)
                return result
            with self.dialect.autocommit(proxy.dbapi_connection):
                return work(CursorExecutor(self.dialect, proxy.dbapi_connection))
        except Exception as error:
            if self._is_lost(error, proxy):
                # All connections that are as old are taken for broken, so that the next try gets a new one.
                self.engine.pool._invalidate(proxy, error)  # type: ignore[arg-type]  # noqa: SLF001 (what SQLAlchemy's own connections call)
                msg = f"The connection to {self} was lost: {translate(error)}"
                raise ConnectionLostError(msg) from error
            code = sqlstate(error)
            if code == READ_ONLY:
                self.leave_server(proxy)
            elif code == _PLAN_IS_OUTDATED:
                self.engine.pool._invalidate(proxy, error)  # type: ignore[arg-type]  # noqa: SLF001 (as above)
            answers = (PersistenceError, self.engine.dialect.loaded_dbapi.Error)
            if self.outlives_connections and not isinstance(error, answers):
                # The driver may have stopped in the middle of sending the statement.
                proxy.invalidate()
            raise
        except BaseException:
            # Interrupted in the middle of a conversation: nobody knows in which state the connection is. What is left
            # of a transaction is rolled back where closing the connection would end the database.
            if self.outlives_connections:
                proxy.invalidate()
            raise
        finally:
            proxy.close()

    def _check_out(self) -> PoolProxiedConnection | PooledConnection:
        pool = self.engine.pool
        try:
            asks_first = pool._pre_ping  # noqa: SLF001 (it may be an option of the user's)
            if self.is_ours and not asks_first and self._count_events(pool) == self._own_events:
                return check_out(pool, self._checked_out, self._check_in)
            proxy = self.engine.raw_connection()
            if self.is_ours:
                proxy.info[_OURS] = True
            while not self.is_ours and not self._is_usable(proxy):
                # No event of ours looks at the connections of a pool that is not ours.
                proxy.invalidate()
                proxy.close()
                proxy = self.engine.raw_connection()
        except Exception as error:  # noqa: BLE001 (whatever a driver raises)
            raise self.connect_error(error) from cause_of(error)
        return proxy

    def _is_usable(self, proxy: PoolProxiedConnection) -> bool:
        try:
            self._checked_out(proxy.dbapi_connection, None, proxy)
        except InvalidatePoolError:
            return False
        return True

    def distrust(self, error: Exception) -> None:
        """Take all connections that are in the pool now for broken, as SQLAlchemy does for errors that it knows."""
        no_proxy: Any = None
        self.engine.pool._invalidate(no_proxy, error)  # noqa: SLF001 (there is no other way without a connection)

    def leave_server(self, proxy: Any = None) -> None:
        """Replace all connections before their next use, because the server that they lead to has become read-only;
        ``proxy`` at once.
        """
        self.engine.pool._invalidate(proxy)  # noqa: SLF001 (as above)
        self.wakeups.reconnect()

    def connect_error(self, error: Exception) -> Exception:
        """Return the library's exception for a connection that could not be had."""
        if isinstance(error, PersistenceError):
            return error
        if isinstance(error, sa.exc.TimeoutError):
            remedy = "Close transactions sooner, do not open one inside another, or enlarge the pool"
            return translate(error, f"No connection to {self} became free: {self._pool_text()}. {remedy}")
        translated = translate(error, f"Cannot connect to {self}")
        # What some drivers call an InterfaceError is a server that is not there.
        return OperationalError(str(translated)) if isinstance(translated, InterfaceError) else translated

    def _pool_text(self) -> str:
        if not self.is_ours:
            return f"the pool of your engine is exhausted ({self.engine.pool.status()})"
        if not self.outlives_connections:
            return f"a database in memory has one connection, and it was in use for {self.settings.pool_timeout:g} s"
        size, overflow = self.settings.pool_size or 0, self.settings.max_overflow or 0
        return (
            f"all {size + overflow} of the pool were in use for {self.settings.pool_timeout:g} s "
            f"(SQLALCHEMY_POOL_SIZE={size}, SQLALCHEMY_MAX_OVERFLOW={overflow})"
        )

    def _is_lost(self, error: Exception, proxy: PoolProxiedConnection | PooledConnection) -> bool:
        if not self.dialect.is_server:
            return False
        if (sqlstate(error) or "").startswith(_LOST):
            return True
        dialect = self.engine.dialect
        if isinstance(error, dialect.loaded_dbapi.Error):
            connection = proxy.dbapi_connection
            return bool(getattr(connection, "closed", False)) or dialect.is_disconnect(error, connection, None)
        return isinstance(error, OSError)

    # -- end --

    def disposed(self) -> Engine:
        """Return an engine as the public one is when it is disposed; that of a user as it is.

        It has a pool of its own: whoever disposes of it once more must not close the connections of applications that
        go on, which for a database in memory would remove it.
        """
        if not self.is_ours:
            return self.public
        engine = self.engine
        return self.dialect.public_engine(
            Engine(engine.pool.recreate(), engine.dialect, engine.url, hide_parameters=True)
        )

    def dispose(self) -> None:
        """Close all idle connections now, and those in use when they come back."""
        self.wakeups.close()
        if self._turns is not None:
            self._turns.close()
        if self.is_ours:
            self._is_disposed = True
            self.engine.dispose()

    def before_fork(self) -> None:
        """Close idle connections to a database whose library does not notice that it is in another process."""
        if self.is_ours and self.outlives_connections and not self.dialect.is_server:
            with self.wakeups.ignoring():  # closing the last one tidies up the file
                self.engine.dispose()
            # Those in use are of the pool that was, which would keep them open.
            self._outdated = set(self._open)

    def after_fork(self) -> None:
        """Forget, in a child process, what belongs to the parent: its connections (without closing them) and its
        threads.
        """
        self.wakeups.after_fork()
        self.catalog.after_fork()
        self.dialect.after_fork()
        if self._turns is not None:
            self._turns.after_fork()
        if self.is_ours and self.outlives_connections:
            self._is_unsafe_after_fork = bool(self._open) and not self.dialect.is_server
            # Kept, because collecting a connection may close it, and with it what the parent holds.
            _of_the_parent.append(self.engine.pool)
            self.engine.dispose(close=False)


_LOST: Final = ("08", "57P")  # connection trouble, and a server that shuts down or ends the session
_PLAN_IS_OUTDATED: Final = "0A000"  # columns have got other types since a connection prepared a statement

# Marks a checkout of our own, which leaves no settings behind.
_OURS: Final = "eventsourcing_sqlalchemy"

# What a connection was like when it was new.
_AS_NEW: Final = "eventsourcing_sqlalchemy_as_new"

# Pools of a parent process, in a child. Never used again, and never collected.
_of_the_parent: list[Pool] = []
