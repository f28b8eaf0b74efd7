"""Views of the school with several tables: by SQLAlchemy Core, and by SQL of the user's own."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import sqlalchemy as sa
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.persistence import Tracking
from eventsourcing.projection import Projection

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tests.samples.training_school.application import Dog


class Totals(NamedTuple):
    """One consistent look at a ledger."""

    position: int
    dogs: int
    tricks: int
    counted: int
    """The sum of a table that counts both."""
    codes: int
    """The number of different values of ``code`` in all rows."""


class Ledger(SQLAlchemyTrackingRecorder):
    """Dogs with serial numbers, their tricks, and a count of both."""

    code: ClassVar = "a"
    """Written into each row."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kind = sa.Enum("small", "large", name=f"{self.tracking_table_name}_kind", schema=self.schema_name)
        self.dogs = self.own_table(
            "dogs",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("dog", sa.Text, nullable=False, unique=True),
            sa.Column("name", sa.Text, nullable=False, index=True),
            sa.Column("kind", kind, nullable=False),
            sa.Column("code", sa.Text, nullable=False),
        )
        self.tricks = self.own_table(
            "tricks",
            sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
            sa.Column("dog_id", sa.Integer, sa.ForeignKey(self.dogs.c.id), nullable=False, index=True),
            sa.Column("trick", sa.Text, sa.CheckConstraint("trick <> ''"), nullable=False),
            sa.Column("code", sa.Text, nullable=False),
        )
        self.counts = self.own_table(
            "counts", sa.Column("what", sa.Text, primary_key=True), sa.Column("number", sa.Integer, nullable=False)
        )

    def create_table(self) -> None:
        super().create_table()
        self.own_tables.create_all(self.datastore.engine)

    def add_dog(self, dog: str, name: str, tracking: Tracking) -> None:
        """Add a dog."""
        with self.transaction() as session:
            kind = "small" if len(name) < 5 else "large"
            session.execute(sa.insert(self.dogs).values(dog=dog, name=name, kind=kind, code=self.code))
            self._count(session)
            self._insert_tracking(session, tracking)

    def add_trick(self, dog: str, trick: str, tracking: Tracking) -> None:
        """Add a trick to a dog."""
        with self.transaction() as session:
            number = sa.select(self.dogs.c.id).where(self.dogs.c.dog == dog).scalar_subquery()
            session.execute(sa.insert(self.tricks).values(dog_id=number, trick=trick, code=self.code))
            self._count(session)
            self._insert_tracking(session, tracking)

    def _count(self, session: Any) -> None:
        changed = sa.update(self.counts).values(number=self.counts.c.number + 1)
        if not session.execute(changed).rowcount:
            session.execute(sa.insert(self.counts).values(what="all", number=1))

    def totals_query(self) -> sa.Select[Any]:
        """Return the query of :meth:`totals`: one statement, so one look."""
        codes = sa.union(sa.select(self.dogs.c.code), sa.select(self.tricks.c.code)).subquery()
        return sa.select(
            sa.select(sa.func.coalesce(sa.func.max(self.tracking_table.c.notification_id), 0)).scalar_subquery(),
            sa.select(sa.func.count()).select_from(self.dogs).scalar_subquery(),
            sa.select(sa.func.count()).select_from(self.tricks).scalar_subquery(),
            sa.select(sa.func.coalesce(sa.func.sum(self.counts.c.number), 0)).scalar_subquery(),
            sa.select(sa.func.count()).select_from(codes).scalar_subquery(),
        )

    def totals(self) -> Totals:
        """Return the position and the numbers of rows."""
        with self.transaction(commit=False) as session:
            return Totals(*map(int, session.execute(self.totals_query()).one()))

    def content(self) -> list[tuple[str, str, list[str]]]:
        """Return dogs with their tricks, in the order in which they were added."""
        with self.transaction(commit=False) as session:
            tricks = session.execute(sa.select(self.tricks).order_by(self.tricks.c.id)).all()
            dogs = session.execute(sa.select(self.dogs).order_by(self.dogs.c.id)).all()
        return [(dog.dog, dog.name, [each.trick for each in tricks if each.dog_id == dog.id]) for dog in dogs]


class KeepLedger(Projection[Ledger]):
    """Keeps a ledger."""

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Any) -> None:
        """Move on at other events."""
        self.view.insert_tracking(tracking)

    @process_event.register(Dog.Registered)
    def _(self, domain_event: Any, tracking: Any) -> None:
        self.view.add_dog(str(domain_event.originator_id), domain_event.name, tracking)

    @process_event.register(Dog.TrickAdded)
    def _(self, domain_event: Any, tracking: Any) -> None:
        self.view.add_trick(str(domain_event.originator_id), domain_event.trick, tracking)


class RawLedger(SQLAlchemyTrackingRecorder):
    """Names of dogs in a table, and a view in the database that counts them, both created by SQL."""

    def named(self, suffix: str) -> str:
        """Return the quoted name of a table."""
        name = f'"{self.tracking_table_name}_{suffix}"'
        return f'"{self.schema_name}".{name}' if self.schema_name else name

    def create_table(self) -> None:
        super().create_table()
        with self.datastore.engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {self.named('names')} (name TEXT NOT NULL)")
            index = f'"ix_{self.tracking_table_name}_names"'
            connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS {index} ON {self.named('names')} (name)")
            view = "CREATE OR REPLACE VIEW" if self.datastore.dialect.has_schemas else "CREATE VIEW IF NOT EXISTS"
            connection.exec_driver_sql(
                f"{view} {self.named('numbers')} AS SELECT count(*) AS number FROM {self.named('names')}"
            )

    def add(self, name: str, tracking: Tracking) -> None:
        """Add a dog."""
        with self.transaction() as session:
            session.execute(sa.text(f"INSERT INTO {self.named('names')} VALUES (:name)"), {"name": name})
            self._insert_tracking(session, tracking)

    def number(self) -> int:
        """Return what the view in the database counts."""
        with self.transaction(commit=False) as session:
            return int(session.scalar(sa.text(f"SELECT number FROM {self.named('numbers')}")) or 0)


class KeepNames(Projection[RawLedger]):
    """Keeps the names of dogs, and ignores what they learn."""

    def process_event(self, domain_event: Any, tracking: Any) -> None:
        if isinstance(domain_event, Dog.Registered):
            self.view.add(domain_event.name, tracking)
