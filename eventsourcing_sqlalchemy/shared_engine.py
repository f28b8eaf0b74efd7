"""An engine that applications share: how it is made, how its pool behaves, and how a statement of ours runs on it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa
from eventsourcing.persistence import InterfaceError, OperationalError
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import Pool, QueuePool

from eventsourcing_sqlalchemy.dialects import dialect_for
from eventsourcing_sqlalchemy.errors import ConnectionLostError, SettingsError, sqlstate, translate
from eventsourcing_sqlalchemy.executors import CursorExecutor
from eventsourcing_sqlalchemy.settings import DEFAULTS, EngineSettings, mask
from eventsourcing_sqlalchemy.wakeups import Wakeups

if TYPE_CHECKING:
    from sqlalchemy.pool import PoolProxiedConnection

    from eventsourcing_sqlalchemy.dialects.base import Dialect, Executor

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
            return dialect_for(self.engine.dialect.name, self.engine.dialect.driver)
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
        self._is_disposed = False
        self.dialect = source.dialect()
        if source.engine is not None:
            self.engine = self.public = source.engine
        else:
            assert source.url is not None
            self.engine = self._create(source.url, source.creator, dict(source.options))
            self.public = self.dialect.public_engine(self.engine)
        self.outlives_connections = self.dialect.outlives_connections(self.engine.url)
        self.leases = 0
        self.wakeups = Wakeups(self)

    def __str__(self) -> str:
        return mask(self.engine.url)

    def _create(self, url: URL, creator: Callable[[], Any] | None, options: dict[str, Any]) -> Engine:
        ours = self.dialect.engine_options(url, self.settings)
        pool_class = options.get("poolclass")
        if pool_class is not None and not issubclass(pool_class, QueuePool):
            for name in ("pool_size", "max_overflow", "pool_timeout"):
                ours.pop(name, None)
        if creator is not None:
            options["creator"] = creator
            ours.pop("connect_args", None)
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
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine.pool, "reset", self._reset)
        event.listen(engine, "checkin", self._checked_in)
        return engine

    # -- events of the pool --

    def _connected(self, connection: Any, record: Any) -> None:
        self.dialect.connected(connection, self.settings)

    def _checked_out(self, connection: Any, record: Any, proxy: Any) -> None:
        # A connection that the server has closed while it was idle is recognised here, for the price of looking at the
        # socket, and a new one takes its place: the call never sees the failure.
        try:
            if self.dialect.is_stale(connection):
                self.engine.dialect.do_ping(connection)
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
            self.dialect.reset(connection)

    def _checked_in(self, connection: Any, record: Any) -> None:
        if self._is_disposed and connection is not None:
            record.invalidate()

    # -- use --

    def run(self, work: Callable[[Executor], _T]) -> _T:
        """Call ``work`` with an executor on a pooled connection that commits every statement by itself, and return its
        result.

        Errors are the library's: ConnectionLostError when the connection broke under way, and OperationalError when
        there was none to be had.
        """
        proxy = self._check_out()
        try:
            if self.is_ours:
                proxy.info[_OURS] = True
                return work(CursorExecutor(self.dialect, proxy.dbapi_connection))
            with self.dialect.autocommit(proxy.dbapi_connection):
                return work(CursorExecutor(self.dialect, proxy.dbapi_connection))
        except Exception as error:
            if self._is_lost(error, proxy):
                proxy.invalidate(error)
                msg = f"The connection to {self} was lost: {translate(error)}"
                raise ConnectionLostError(msg) from error
            raise
        except BaseException:
            # Interrupted in the middle of a conversation: nobody knows in which state the connection is.
            proxy.invalidate()
            raise
        finally:
            proxy.close()

    def _check_out(self) -> PoolProxiedConnection:
        try:
            proxy = self.engine.raw_connection()
            while not self.is_ours and not self._is_usable(proxy):
                # No event of ours looks at the connections of a pool that is not ours.
                proxy.invalidate()
                proxy.close()
                proxy = self.engine.raw_connection()
        except Exception as error:
            raise self.connect_error(error) from error
        return proxy

    def _is_usable(self, proxy: PoolProxiedConnection) -> bool:
        try:
            self._checked_out(proxy.dbapi_connection, None, proxy)
        except InvalidatePoolError:
            return False
        return True

    def connect_error(self, error: Exception) -> Exception:
        """Return the library's exception for a connection that could not be had."""
        if isinstance(error, sa.exc.TimeoutError):
            pool = self.settings
            total = (pool.pool_size or 0) + (pool.max_overflow or 0)
            return translate(
                error,
                f"No connection to {self} became free within {pool.pool_timeout:g} s: all {total} of the pool are "
                "in use "
                f"(SQLALCHEMY_POOL_SIZE={pool.pool_size}, SQLALCHEMY_MAX_OVERFLOW={pool.max_overflow}). "
                "Close transactions sooner, do not open one inside another, or enlarge the pool",
            )
        translated = translate(error, f"Cannot connect to {self}")
        # What some drivers call an InterfaceError is a server that is not there.
        return OperationalError(str(translated)) if isinstance(translated, InterfaceError) else translated

    def _is_lost(self, error: Exception, proxy: PoolProxiedConnection) -> bool:
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

    def dispose(self) -> None:
        """Close all idle connections now, and those in use when they come back."""
        self.wakeups.close()
        if self.is_ours:
            self._is_disposed = True
            self.engine.dispose()

    def after_fork(self) -> None:
        """Forget, in a child process, what belongs to the parent: its connections (without closing them) and its
        threads.
        """
        self.wakeups.after_fork()
        self.dialect.after_fork()
        if self.is_ours and self.outlives_connections:
            # Kept, because collecting a connection may close it, and with it what the parent holds.
            _of_the_parent.append(self.engine.pool)
            self.engine.dispose(close=False)


# Connection trouble, and a server that shuts down.
_LOST: Final = ("08", "57P01", "57P02", "57P03")

# Marks a checkout of our own, which leaves no settings behind.
_OURS: Final = "eventsourcing_sqlalchemy"

# Pools of a parent process, in a child. Never used again, and never collected.
_of_the_parent: list[Pool] = []
