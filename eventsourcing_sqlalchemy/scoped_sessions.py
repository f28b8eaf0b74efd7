"""Access the session behind a scoped session, or behind a framework's adapter. Neither delegates every attribute of a
session.
"""

from __future__ import annotations

from typing import Any, cast

from eventsourcing.persistence import ProgrammingError
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.errors import translate

__all__ = ["bind_of", "check_idle", "session_of"]


def session_of(scoped: Any) -> Session:
    """Return the session of the current scope."""
    registry = getattr(scoped, "registry", None)
    return cast("Session", scoped if registry is None else registry())


def check_idle(scoped: Any) -> None:
    """Raise ProgrammingError when the session of the current scope is in a transaction.

    Where a thread has one connection for everything, creating tables would commit the session's changes.
    """
    if session_of(scoped).in_transaction():
        msg = (
            "The scoped session is in a transaction. Construct the application before you use the session, or create "
            "its tables beforehand and set CREATE_TABLE=no."
        )
        raise ProgrammingError(msg)


def bind_of(scoped: Any) -> Engine | Connection:
    """Return the engine that the current scope's session is bound to, or its connection, as tests bind one.

    Raises the library's exception where the scope has no session, for example outside of a request.
    """
    try:
        return cast("Engine | Connection", scoped.get_bind())
    except Exception as error:
        raise translate(error, "The scoped session has no database in this context") from error
