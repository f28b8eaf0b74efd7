"""An engine that applications share: create it, run statements on it, and dispose of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from eventsourcing.persistence import InterfaceError, OperationalError, PersistenceError
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import PoolProxiedConnection, QueuePool, StaticPool

from eventsourcing_sqlalchemy.dialects import dialect_for, dialect_of
from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.engines.executors import CursorExecutor
from eventsourcing_sqlalchemy.engines.listener_connection import connect_listener
from eventsourcing_sqlalchemy.engines.pool import ConnectionPool, PooledConnection
from eventsourcing_sqlalchemy.engines.shape_cache import ShapeCache
from eventsourcing_sqlalchemy.engines.static_pool import lock_static_pool
from eventsourcing_sqlalchemy.engines.waits import WaitCountingPool
from eventsourcing_sqlalchemy.errors import (
    READ_ONLY,
    ConnectionLostError,
    SettingsError,
    cause_of,
    sqlstate,
    translate,
)
from eventsourcing_sqlalchemy.notifications.file_watcher import FileWatcher
from eventsourcing_sqlalchemy.notifications.listener import ListenThread
from eventsourcing_sqlalchemy.notifications.receiver import CommitReceiver
from eventsourcing_sqlalchemy.notifications.wakeups import CHANNEL, Wakeups
from eventsourcing_sqlalchemy.settings import mask

__all__ = ["EngineSource", "SharedEngine"]

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, repr=False)  # The URL and the options may hold secrets.
class EngineSource:
    """The source of a shared engine: the user's own engine, or a URL, with or without a connection creator."""

    url: URL | None = None
    creator: Callable[[], Any] | None = None
    engine: Engine | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def dialect(self) -> Dialect:
        """Return a new dialect; raises NotSupportedError for an unsupported database or driver."""
        if self.engine is not None:
            return dialect_of(self.engine.dialect)
        assert self.url is not None
        return dialect_for(self.url.get_backend_name(), self.url.get_driver_name())

    def key(self) -> Hashable:
        """Return the identity of the database; two creators with one URL are two databases."""
        if self.engine is not None:
            return self.engine
        assert self.url is not None
        identity = self.dialect().identity(self.url)
        return object() if self.options or identity is None else (identity, self.creator)


class SharedEngine:
    """An engine with its dialect, pool and wake-ups.

    ``public`` has ordinary transactions, for sessions and users. The private ``engine``, on the same pool, commits each
    statement by itself.
    """

    def __init__(self, source: EngineSource, settings: EngineSettings, application: str) -> None:
        self.settings = settings.with_defaults()
        self.asked_by = {variable: application for variable, _ in settings.asked()}
        self.is_ours = source.engine is None
        self.is_made_by_url = self.is_ours and source.creator is None
        self.dialect = source.dialect()
        if source.engine is not None:
            self.engine = self.public = source.engine
            self.pool = ConnectionPool(self.engine, self.dialect, self.settings, is_ours=False)
        else:
            assert source.url is not None
            self.engine = self._create(source.url, source.creator, dict(source.options))
            self.public = self.dialect.public_engine(self.engine)
        self._counts_uses = self.is_ours and self.dialect.remembers_tables
        self._static_pool_lock = lock_static_pool(self.engine, self.dialect, self.settings.lock_timeout or 0.0)
        self.outlives_connections = self.dialect.outlives_connections(self.engine.url)
        self.wakeups = Wakeups(
            send=self._send if self.dialect.can_notify else None,
            make_listener=self._make_listener,
            connect_timeout=self.settings.connect_timeout,
            is_private=not self.outlives_connections,
        )
        self.shape_cache = ShapeCache(can_read_all=self.is_ours and self.dialect.reads_ahead)

    def __str__(self) -> str:
        return mask(self.engine.url)

    def _create(self, url: URL, creator: Callable[[], Any] | None, options: dict[str, Any]) -> Engine:
        ours = self.dialect.engine_options(url, self.settings)
        if options.get("poolclass") is StaticPool and not self.dialect.outlives_connections(url):
            # Our default pool has one connection there, too, and gives it to one user at a time.
            del options["poolclass"]
        pool_class = options.get("poolclass")
        if pool_class is None:
            ours["poolclass"] = WaitCountingPool
        connect_args = {**ours.pop("connect_args", {}), **options.pop("connect_args", {})}
        keeps_encoding = "client_encoding" in url.query or "client_encoding" in options
        if keeps_encoding:
            connect_args.pop("client_encoding", None)
        if pool_class is not None and not issubclass(pool_class, QueuePool):
            for name in ("pool_size", "max_overflow", "pool_timeout", "pool_use_lifo"):
                ours.pop(name, None)
        if creator is not None:
            options["creator"] = creator
        elif connect_args:
            options["connect_args"] = connect_args
        # ConnectionPool ends an open transaction: SQLAlchemy's reset would cost a round trip for every statement.
        fixed = {"pool_reset_on_return": None, "isolation_level": ours.pop("isolation_level"), "hide_parameters": True}
        try:
            engine = sa.create_engine(url, **{**ours, **options, **fixed})
        except ModuleNotFoundError as error:
            driver = self.dialect.driver
            msg = f"The driver {driver!r} of {mask(url)} is not installed. Install it: {self.dialect.drivers[driver]}"
            raise SettingsError(msg, variable="SQLALCHEMY_URL") from error
        except Exception as error:  # noqa: BLE001 (a driver rejects its arguments)
            raise translate(error, mask(url)) from None
        self.pool = ConnectionPool(engine, self.dialect, self.settings, is_ours=True)
        self.pool.register_events(has_creator=creator is not None, keeps_encoding=keeps_encoding)
        event.listen(engine, "handle_error", self._failed)
        return engine

    def _failed(self, context: sa.engine.ExceptionContext) -> None:
        # A statement of a session. Only its author can run it again; the next session gets a new connection.
        if sqlstate(context.original_exception) == READ_ONLY:
            self.leave_server()

    # -- use --

    def exclusive(self) -> AbstractContextManager[object]:
        """Return a context that holds the connection of a StaticPool, and yields the value of ``HOLDER``."""
        return nullcontext() if self._static_pool_lock is None else self._static_pool_lock.take()

    def run(self, work: Callable[[Executor], _T], caller: Hashable = None) -> _T:
        """Call ``work`` with an executor on a pooled connection that commits every statement by itself, and return its
        result; ``caller`` stands for an application: a connection serves a limited number of them.

        Work that a read-only server refuses is retried once on a new connection: after a fail-over, that leads to
        another server.

        Raises ConnectionLostError when the connection breaks, OperationalError when none is free, and what ``work``
        raises.
        """
        if self._static_pool_lock is not None:
            with self._static_pool_lock.take():
                return self._run(work, caller)
        try:
            return self._run(work, caller)
        except Exception as error:
            if sqlstate(error) != READ_ONLY:
                raise
        return self._run(work, caller)

    def _run(self, work: Callable[[Executor], _T], caller: Hashable) -> _T:
        try:
            proxy = self.pool.check_out()
        except Exception as error:  # noqa: BLE001 (whatever a driver raises)
            raise self.connect_error(error) from cause_of(error)
        try:
            if self.is_ours:
                result = work(CursorExecutor(self.dialect, proxy.dbapi_connection))
                if caller is not None and self._counts_uses:
                    self.pool.count_use(proxy, caller)
                return result
            with self.dialect.autocommit(proxy.dbapi_connection):
                return work(CursorExecutor(self.dialect, proxy.dbapi_connection))
        except Exception as error:
            self._invalidate_after(error, proxy)
            raise
        except BaseException:
            # Interrupted while the driver talks to the server: the connection's state is unknown. Where closing it
            # would end the database, its transaction is rolled back instead.
            if self.outlives_connections:
                proxy.invalidate()
            raise
        finally:
            proxy.close()

    def _invalidate_after(self, error: Exception, proxy: PoolProxiedConnection | PooledConnection) -> None:
        """Replace connections that cannot be used after an error; raises ConnectionLostError for one that broke."""
        if self._is_lost(error, proxy):
            # All connections that are as old count as broken, so that a retry gets a new one.
            self.pool.invalidate_all(error, proxy)
            msg = f"The connection to {self} was lost: {translate(error)}"
            raise ConnectionLostError(msg) from error
        code = sqlstate(error)
        if code == READ_ONLY:
            self.leave_server(proxy)
        elif code == _PLAN_IS_OUTDATED:
            self.pool.invalidate_all(error, proxy)
        answers = (PersistenceError, self.engine.dialect.loaded_dbapi.Error)
        if self.outlives_connections and not isinstance(error, answers):
            # The driver may have stopped in the middle of sending the statement.
            proxy.invalidate()

    def leave_server(self, proxy: PoolProxiedConnection | PooledConnection | None = None) -> None:
        """Replace all connections before their next use, because the server that they lead to has become read-only;
        close ``proxy`` now.
        """
        self.pool.invalidate_all(connection=proxy)
        self.wakeups.reconnect()

    def _send(self, text: str) -> None:
        """Notify other processes."""
        self.run(lambda executor: executor.fetch(self.dialect.notify_alone_statement, (CHANNEL, text)))

    def _make_listener(self, wakeups: Wakeups) -> CommitReceiver | None:
        """Return a thread that receives the wake-ups of other processes, or None where they cannot be received."""
        if self.dialect.can_notify:
            return ListenThread(wakeups, partial(connect_listener, self.engine, self.dialect, self.settings, CHANNEL))
        look = self.dialect.watch(self.engine.url) if self.is_made_by_url else None
        return None if look is None else FileWatcher(wakeups, look)

    def connect_error(self, error: Exception) -> Exception:
        """Return the library's exception for a connection that could not be obtained."""
        if isinstance(error, PersistenceError):
            return error
        if isinstance(error, sa.exc.TimeoutError):
            remedy = "Close transactions sooner, do not open one inside another, or enlarge the pool"
            return translate(error, f"No connection to {self} became free: {self._pool_text()}. {remedy}")
        translated = translate(error, f"Cannot connect to {self}")
        # Some drivers raise an InterfaceError for a server that is not there.
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
        """Return an engine like the public one after its disposal; a user's engine as it is.

        It has a pool of its own: disposing of it once more must not close the connections of other applications, which
        would remove a database in memory.
        """
        if not self.is_ours:
            return self.public
        engine = self.engine
        return self.dialect.public_engine(
            Engine(engine.pool.recreate(), engine.dialect, engine.url, hide_parameters=True)
        )

    def dispose(self) -> None:
        """Close all idle connections now, and those in use when they are checked in."""
        self.wakeups.close()
        if self._static_pool_lock is not None:
            self._static_pool_lock.close()
        self.pool.dispose()

    def before_fork(self) -> None:
        """Close idle connections to a database whose library does not notice that it is in another process."""
        if self.is_ours and self.outlives_connections and not self.dialect.is_server:
            with self.wakeups.ignoring():  # closing the last one tidies up the file
                self.pool.before_fork()

    def after_fork(self) -> None:
        """Forget the parent's connections, without closing them, and its threads, in a child process."""
        self.wakeups.after_fork()
        self.shape_cache.after_fork()
        if self._static_pool_lock is not None:
            self._static_pool_lock.after_fork()
        if self.is_ours and self.outlives_connections:
            self.pool.after_fork()


_LOST: Final = ("08", "57P")  # connection trouble, and a server that shuts down or ends the session
_PLAN_IS_OUTDATED: Final = "0A000"  # columns have got other types since a connection prepared a statement
