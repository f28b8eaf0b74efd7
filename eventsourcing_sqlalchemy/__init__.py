"""Persistence module for the ``eventsourcing`` library, on SQLAlchemy.

Set PERSISTENCE_MODULE=eventsourcing_sqlalchemy and SQLALCHEMY_URL. The library looks up the factory in this module, and
requires exactly one factory class here.
"""

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory

__all__ = ["SQLAlchemyFactory"]
