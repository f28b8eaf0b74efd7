"""Differences between PostgreSQL drivers: connection state, sockets, notifications, prepared statements."""

from __future__ import annotations

from eventsourcing_sqlalchemy.dialects.postgresql.drivers.base import Driver, DriverListener
from eventsourcing_sqlalchemy.dialects.postgresql.drivers.pg8000 import Pg8000
from eventsourcing_sqlalchemy.dialects.postgresql.drivers.psycopg import Psycopg
from eventsourcing_sqlalchemy.dialects.postgresql.drivers.psycopg2 import Psycopg2

__all__ = ["Driver", "DriverListener", "driver_for"]

_DRIVERS: dict[str, type[Driver]] = {"psycopg2": Psycopg2, "psycopg": Psycopg, "pg8000": Pg8000}


def driver_for(name: str) -> Driver:
    """Return the driver by SQLAlchemy's name."""
    return _DRIVERS[name]()
