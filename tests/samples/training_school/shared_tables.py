"""Views whose tables are outside their tenant's placement, as users may write them by mistake."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder, SQLAlchemyTrackingRecorder

SHARED = "item_counts"
"""The table that all tenants would share."""


class Base(DeclarativeBase):
    """Declares the shared table."""


class ItemCount(Base):
    """A row of the shared table."""

    __tablename__ = SHARED
    item: Mapped[str] = mapped_column(primary_key=True)


COUNTS = sa.Table(SHARED, sa.MetaData(), sa.Column("item", sa.Text, primary_key=True))


class CreatedByMetadata(SQLAlchemyTrackingRecorder):
    """Creates the shared table with all declared tables."""

    def create_table(self) -> None:
        super().create_table()
        Base.metadata.create_all(self.datastore.engine)


class CreatedAlone(SQLAlchemyTrackingRecorder):
    """Creates the shared table alone."""

    def create_table(self) -> None:
        super().create_table()
        COUNTS.create(self.datastore.engine, checkfirst=True)


class CreatedByStatement(SQLAlchemyTrackingRecorder):
    """Creates the shared table with SQL text."""

    def create_table(self) -> None:
        super().create_table()
        with self.datastore.engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {SHARED} (item TEXT PRIMARY KEY)")


class CreatedForFirstTenant(SQLAlchemyTrackingRecorder):
    """Keeps the first tenant's table for all tenants."""

    table: sa.Table | None = None

    def create_table(self) -> None:
        super().create_table()
        if CreatedForFirstTenant.table is None:
            CreatedForFirstTenant.table = self.own_table("counts", sa.Column("item", sa.Text, primary_key=True))
        CreatedForFirstTenant.table.metadata.create_all(self.datastore.engine)


class WithIndex(SQLAlchemyTrackingRecorder):
    """Has a table with an index in its tenant's placement."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counts = self.own_table(
            "counts", sa.Column("item", sa.Text, primary_key=True), sa.Column("number", sa.Integer, index=True)
        )

    def create_table(self) -> None:
        super().create_table()
        self.counts.create(self.datastore.engine, checkfirst=True)


class EventRecorderWithSharedTable(SQLAlchemyApplicationRecorder):
    """Creates the shared table, as an event recorder."""

    def create_table(self) -> None:
        super().create_table()
        COUNTS.create(self.datastore.engine, checkfirst=True)
