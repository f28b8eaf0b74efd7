"""Views whose tables are not in the place of their tenant, as users may write them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder, SQLAlchemyTrackingRecorder

STRAY = "item_counts"
"""The name of the table that all tenants would share."""


class Base(DeclarativeBase):
    """Has the table of all tenants."""


class ItemCount(Base):
    """How many there are of an item."""

    __tablename__ = STRAY
    item: Mapped[str] = mapped_column(primary_key=True)


COUNTS = sa.Table(STRAY, sa.MetaData(), sa.Column("item", sa.Text, primary_key=True))


class MadeByMetadata(SQLAlchemyTrackingRecorder):
    """Makes it with everything else that is declared."""

    def create_table(self) -> None:
        super().create_table()
        Base.metadata.create_all(self.datastore.engine)


class MadeAlone(SQLAlchemyTrackingRecorder):
    """Makes it alone."""

    def create_table(self) -> None:
        super().create_table()
        COUNTS.create(self.datastore.engine, checkfirst=True)


class MadeByStatement(SQLAlchemyTrackingRecorder):
    """Makes it by a statement of its own."""

    def create_table(self) -> None:
        super().create_table()
        with self.datastore.engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {STRAY} (item TEXT PRIMARY KEY)")


class MadeForTheFirst(SQLAlchemyTrackingRecorder):
    """Takes the table of the tenant who came first to be everybody's."""

    table: sa.Table | None = None

    def create_table(self) -> None:
        super().create_table()
        if MadeForTheFirst.table is None:
            MadeForTheFirst.table = self.own_table("counts", sa.Column("item", sa.Text, primary_key=True))
        MadeForTheFirst.table.metadata.create_all(self.datastore.engine)


class WithAnIndex(SQLAlchemyTrackingRecorder):
    """Has a table in its place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counts = self.own_table(
            "counts", sa.Column("item", sa.Text, primary_key=True), sa.Column("number", sa.Integer, index=True)
        )

    def create_table(self) -> None:
        super().create_table()
        self.counts.create(self.datastore.engine, checkfirst=True)


class OfAnApplication(SQLAlchemyApplicationRecorder):
    """Makes the table of all tenants, as a recorder of events."""

    def create_table(self) -> None:
        super().create_table()
        COUNTS.create(self.datastore.engine, checkfirst=True)
