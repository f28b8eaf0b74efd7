"""Environment variables of a process that would direct a tenant's application elsewhere."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, scoped_session, sessionmaker


def engine() -> sa.Engine:
    """Fail: a tenant's application must not use the process's engine."""
    msg = "a tenant's application took an engine of the process"
    raise AssertionError(msg)


def session() -> scoped_session[Session]:
    """Fail: a tenant's application must not use the process's session."""
    return scoped_session(sessionmaker(bind=engine()))


def creator() -> Any:
    """Fail: a tenant's application must not use the process's connections."""
    msg = "a tenant's application took a connection of the process"
    raise AssertionError(msg)


def variables(url: str) -> dict[str, str]:
    """Return the variables of a process whose own applications are at ``url``."""
    return {
        "SQLALCHEMY_URL": url,
        "SQLALCHEMY_SCHEMA": "public",
        "SQLALCHEMY_TABLE_PREFIX": "hostile_",
        "SQLALCHEMY_SCOPED_SESSION_TOPIC": f"{__name__}:session",
        "SQLALCHEMY_CONNECTION_CREATOR_TOPIC": f"{__name__}:creator",
        "SQLALCHEMY_ENGINE_TOPIC": f"{__name__}:engine",
        "PERSISTENCE_MODULE": "eventsourcing.popo",
        "INFRASTRUCTURE_FACTORY": "eventsourcing.popo",
        "FACTORY_TOPIC": "eventsourcing.popo",
        "CREATE_TABLE": "yes",
        "ORIGINATOR_ID_TYPE": "text",
        "IS_SNAPSHOTTING_ENABLED": "no",
        "TENANCY_TENANT": "00000000-0000-4000-8000-000000000000",
    }
