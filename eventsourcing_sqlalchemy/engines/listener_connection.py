"""Open the connection on which an engine listens for the wake-ups of other processes."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool, PoolProxiedConnection

from eventsourcing_sqlalchemy.dialects import dialect_for
from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.protocols import Listener
from eventsourcing_sqlalchemy.engine_settings import EngineSettings

__all__ = ["connect_listener"]


def connect_listener(
    engine: Engine, dialect: Dialect, settings: EngineSettings, channel: str
) -> tuple[Listener, PoolProxiedConnection] | None:
    """Return a listener and its connection, which the caller closes; None when this database URL cannot listen.

    The connection leads to SQLALCHEMY_LISTEN_URL if that is set. It is detached from the pool: subscribers take none
    of the pool's connections.
    """
    url = settings.listen_url
    if url is not None:
        dialect = dialect_for(url.get_backend_name(), url.get_driver_name())
        arguments = dialect.engine_options(url, settings).get("connect_args", {})
        engine = sa.create_engine(
            url, poolclass=NullPool, connect_args=arguments, isolation_level="AUTOCOMMIT", hide_parameters=True
        )
    connection = engine.raw_connection()
    connection.detach()
    try:
        connection.dbapi_connection.autocommit = True  # type: ignore[union-attr]  # drivers have it, DBAPI does not
        listener = dialect.listen(connection.dbapi_connection, channel)
    except BaseException:
        connection.close()
        raise
    if listener is None:
        connection.close()
        return None
    return listener, connection
