"""Begin the transactions of sessions on a shared engine."""

from __future__ import annotations

from contextlib import ExitStack

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from eventsourcing_sqlalchemy.engines.engine import SharedEngine
from eventsourcing_sqlalchemy.engines.static_pool import HOLDER
from eventsourcing_sqlalchemy.errors import cause_of

__all__ = ["begin_session"]


def begin_session(
    shared: SharedEngine, session_maker: sessionmaker[Session], resources: ExitStack, *, commit: bool
) -> Session:
    """Return a session in a new transaction, which writes if ``commit``; ``resources`` closes it.

    Replaces, once, a connection that is dead or leads to a server that has become read-only. Raises the library's
    exceptions.
    """
    dialect = shared.dialect
    holder = resources.enter_context(shared.exclusive())
    session = resources.enter_context(session_maker())
    options = dialect.session_options(commit=commit) | ({} if holder is None else {HOLDER: holder})

    def begin() -> tuple[Connection, bool]:
        connection = session.connection(execution_options=options)
        return connection, dialect.session_began(connection, shared.settings)

    def begin_unless_useless() -> Connection | None:
        try:
            connection, takes_writes = begin()
            if takes_writes or not commit:
                return connection
            shared.leave_server()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        except OSError as error:
            # What pg8000 raises for a dead connection before SQLAlchemy has begun to use it.
            shared.pool.invalidate_all(error)
        session.rollback()  # it has done nothing yet
        return None

    try:
        # The second time outside of the handler, whose error keeps a dead connection out of the pool.
        connection = begin_unless_useless() or begin()[0]
        if commit:
            dialect.ensure_transaction(connection)
    except Exception as error:  # noqa: BLE001 (whatever a driver raises)
        raise shared.connect_error(error) from cause_of(error)
    return session
