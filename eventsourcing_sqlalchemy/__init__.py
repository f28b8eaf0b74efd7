"""Persistence for the ``eventsourcing`` library in any database that SQLAlchemy and this package know.

Set PERSISTENCE_MODULE=eventsourcing_sqlalchemy and SQLALCHEMY_URL. The library finds the factory in this module, and
wants exactly one here.
"""

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory

__all__ = ["SQLAlchemyFactory"]
