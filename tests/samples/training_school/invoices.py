"""Invoices: rows that SQLAlchemy's ORM writes beside the school's events."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    """The user's own tables."""


class Invoice(Base):
    """A row beside the events."""

    __tablename__ = "invoice"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


def invoices(engine: sa.Engine) -> list[int]:
    """Return the numbers of all committed invoices."""
    with Session(engine) as session:
        return sorted(session.scalars(sa.select(Invoice.number)))


@contextmanager
def own_engine(url: str) -> Iterator[sa.Engine]:
    """Yield an engine that the user owns, on a database with the user's tables."""
    engine = sa.create_engine(url)
    try:
        Base.metadata.create_all(engine)
        yield engine
    finally:
        engine.dispose()
