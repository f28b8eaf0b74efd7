"""How a call of ours takes a connection out of the pool and puts it back.

SQLAlchemy wraps what leaves its pool into a proxy with a finalizer, for users who forget to close it, and runs events.
That takes longer than the rest of a short call, and a call that always puts its connection back needs none of it. Users
get SQLAlchemy's own proxies; so do our calls where somebody listens to the events of the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import InvalidatePoolError

if TYPE_CHECKING:
    from sqlalchemy.pool import Pool, PoolProxiedConnection

__all__ = ["PooledConnection", "check_out", "count_use"]


class PooledConnection:
    """A connection out of the pool, with the part of SQLAlchemy's proxy that calls of ours use."""

    __slots__ = ("_check_in", "_connection_record", "_is_returned", "_pool", "dbapi_connection")

    def __init__(self, pool: Pool, record: Any, check_in: Callable[[Any, Any], None]) -> None:
        self._pool = pool
        self._connection_record = record
        self._check_in = check_in
        self.dbapi_connection: Any = None
        self._is_returned = False

    def __del__(self) -> None:
        # Interrupted outside of every `try`, where Python looks for signals: nobody else would ever return it.
        if not getattr(self, "_is_returned", True):
            self._is_returned = True
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
        """What is kept with the connection until it is closed."""
        info: dict[Any, Any] = self._connection_record.info
        return info

    def invalidate(self, error: BaseException | None = None) -> None:
        """Close the connection; its place in the pool is free for a new one."""
        self._connection_record.invalidate(error)
        self.dbapi_connection = None

    def close(self) -> None:
        """Put the connection back into the pool; to be called once."""
        try:
            if self.dbapi_connection is not None:
                self._check_in(self.dbapi_connection, self._connection_record)
        except Exception as error:  # noqa: BLE001 (as SQLAlchemy does)
            # The call has its own result or error, which says more; what was left open ends with the connection.
            self.invalidate(error)
        except BaseException as error:
            self.invalidate(error)
            raise
        finally:
            self._is_returned = True
            self._pool._do_return_conn(self._connection_record)  # noqa: SLF001 (as the module says)


def check_out(
    pool: Pool, check: Callable[[Any, Any, Any], None], check_in: Callable[[Any, Any], None]
) -> PooledConnection:
    """Return a connection of the pool, or a new one for its place.

    ``check`` raises InvalidatePoolError for a connection that is dead, and then all connections of the pool are taken
    for dead; ``put_back`` makes it ready for the next one who takes it.
    """
    record: Any = pool._do_get()  # noqa: SLF001 (as the module says)
    try:
        borrowed = PooledConnection(pool, record, check_in)
    except BaseException:
        pool._do_return_conn(record)  # noqa: SLF001 (as above)
        raise
    try:
        borrowed.dbapi_connection = record.get_connection()
        try:
            check(borrowed.dbapi_connection, record, borrowed)
        except InvalidatePoolError as error:
            pool._invalidate(borrowed, error, _checkin=False)  # type: ignore[arg-type]  # noqa: SLF001 (as above)
            borrowed.invalidate(error)
            borrowed.dbapi_connection = record.get_connection()
            check(borrowed.dbapi_connection, record, borrowed)
    except BaseException as error:
        borrowed.invalidate(error)
        borrowed.close()
        raise
    return borrowed


# Keeps the applications that a connection has served.
_SERVED: Final = "eventsourcing_sqlalchemy_served"
_MAX_SERVED: Final = 1000


def count_use(connection: PoolProxiedConnection | PooledConnection, caller: Hashable) -> None:
    """Close a connection that has served very many applications: its server process keeps what it knows of each of
    their tables, tens of kilobytes, until it ends.
    """
    callers = connection.info.setdefault(_SERVED, set())
    callers.add(caller)
    if len(callers) > _MAX_SERVED:
        connection.invalidate()
