"""A view is rebuilt while it is written, followed and read: readers see the old rows or the new ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import OperationalError

from tenancy import Tenancy
from tenancy.errors import TenancyError
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.ledger import KeepLedger, Ledger, Totals
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.job_items import Item
from tests.support.loops import Loop
from tests.support.rebuilds import expected_content, fill, ledger, ledger_fleet, rebuild, spaces

EVERYWHERE: Final = pytest.mark.parametrize(
    "place", ["psycopg2", "psycopg", "pg8000", "prefix", "sqlite"], indirect=True
)
ON_SERVERS: Final = pytest.mark.parametrize("place", ["psycopg2", "psycopg", "pg8000"], indirect=True)
GHOSTS: Final = 1000


class Observer:
    """Checks each look at the ledger. Until the view is replaced, it has rows that the events do not have."""

    def __init__(self, look: Callable[[], Totals]) -> None:
        self._look = look
        self._position = 0
        self.ghosts = {0, GHOSTS}

    def __call__(self) -> None:
        position, dogs, tricks, counted, _ = self._look()
        ghosts = counted - position
        assert ghosts in self.ghosts, "fewer rows, or old ones again"
        assert dogs + tricks == counted, "a mixture"
        assert position >= self._position, "an earlier position"
        if not ghosts:
            self.ghosts = {0}
        self._position = position


def haunt(view: Ledger) -> None:
    """Add rows that no event has added."""
    with view.transaction() as session:
        rows = [{"dog": f"ghost {n}", "name": "ghost", "kind": "small", "code": "a"} for n in range(GHOSTS)]
        session.execute(sa.insert(view.dogs), rows)
        session.execute(sa.update(view.counts).values(number=view.counts.c.number + GHOSTS))


@contextmanager
def own_connection(tenants: Tenancy) -> Iterator[sa.Connection]:
    """Yield a connection of the user's own."""
    engine = sa.create_engine(tenants.settings.url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@contextmanager
def own_look(tenants: Tenancy) -> Iterator[Callable[[], Totals]]:
    """Yield a function that looks through one connection of the user's own, with prepared statements."""
    query = ledger(tenants).totals_query()
    with own_connection(tenants) as connection:

        def look() -> Totals:
            with connection.begin():
                return Totals(*map(int, connection.execute(query).one()))

        yield look


@EVERYWHERE
def test_readers_see_old_rows_or_new_ones(tenants: Tenancy) -> None:
    fill(tenants, "acme", 100)
    school = tenants["acme"].get(TrainingSchool)
    with own_look(tenants) as look, tenants.runner() as runner:
        runner.wait("acme")

        def write() -> None:
            school.register("Rex", "sit", "stay")
            runner.wait("acme")  # no faster than a follower can be

        for _ in range(2):
            haunt(ledger(tenants))
            observers = [Observer(ledger(tenants).totals), Observer(look)]
            with Loop(write) as writing, Loop(observers[0]) as first, Loop(observers[1]) as second:
                first.wait_for_calls(3)
                second.wait_for_calls(3)
                rebuild(tenants)
                wait_until(lambda: all(each.ghosts == {0} for each in observers), "the new rows are seen")  # noqa: B023
                writing.wait_for_calls(3)
        runner.wait("acme")
        assert {each.state for each in runner.status()} == {"current"}
    assert ledger(tenants).content() == expected_content(tenants)
    assert spaces(tenants) == []


@pytest.fixture
def quick_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenancy.operations.rebuilding.swap.LOCK_TIMEOUT", 0.05)


@ON_SERVERS
@pytest.mark.usefixtures("quick_locks")
def test_long_reader_delays_the_replacement_and_no_other_reader(tenants: Tenancy) -> None:
    view = ledger(tenants)
    haunt(view)
    attempts: list[int] = []
    item = Item(on_check=lambda: attempts.append(1))
    done = threading.Event()

    def run() -> None:
        rebuild(tenants, item)
        done.set()

    thread = threading.Thread(target=run)
    with view.transaction(commit=False) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(view.dogs)) == 10 + GHOSTS
        thread.start()
        wait_until(lambda: len(attempts) > 4, "several attempts")
        with own_look(tenants) as look, Loop(look) as reader:
            reader.wait_for_calls(10)
        with tenants.runner() as runner:
            fill(tenants, "acme", 1)
            runner.wait("acme")
        assert session.scalar(sa.select(sa.func.count()).select_from(view.dogs)) == 11 + GHOSTS
        assert not done.is_set()
    thread.join(DEADLINE_SECONDS)
    assert done.is_set()
    assert view.content() == expected_content(tenants)


@pytest.mark.usefixtures("quick_locks")
def test_view_that_stays_in_use(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenancy.operations.rebuilding.attempts._TIMEOUT", 0)
    view = ledger(tenants)
    haunt(view)
    item = Item()
    with view.transaction(commit=False) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(view.dogs))
        with pytest.raises(TenancyError, match="could not be replaced") as raised:
            rebuild(tenants, item)
    assert "End the transactions" in raised.value.remedy
    assert view.totals().counted == 30 + GHOSTS
    assert rebuild(tenants, item) == "rebuilt from 0 notifications"
    assert view.content() == expected_content(tenants)


class WithAge(Ledger):
    """The next version of the ledger: another type of an existing column, and a new one."""

    version = "2"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counts = sa.Table(
            self.counts.name,
            sa.MetaData(schema=self.schema_name),
            sa.Column("what", sa.Text, primary_key=True),
            sa.Column("number", sa.BigInteger, nullable=False),
            sa.Column("age", sa.Integer, server_default="7"),
        )

    def create_table(self) -> None:
        super().create_table()
        with self.datastore.engine.begin() as connection:
            self.counts.drop(connection)
            self.counts.create(connection)


@EVERYWHERE
def test_prepared_statements_of_readers_survive_changed_columns(
    tenants: Tenancy, place: tuple[str, dict[str, str]]
) -> None:
    name = ledger(tenants).counts.fullname.replace(".", '"."')
    with own_connection(tenants) as connection:
        # A result column of another type would be refused by PostgreSQL, as after ALTER TABLE.
        query = sa.text(f'SELECT what FROM "{name}" WHERE number >= :number')

        def found() -> list[str]:
            with connection.begin():
                return list(connection.scalars(query, {"number": 30}))

        for _ in range(20):  # drivers prepare a statement after some calls
            assert found() == ["all"]
            assert ledger(tenants).totals().counted == 30
        with ledger_fleet(*place, view=WithAge) as newer:
            rebuild(newer)
            assert newer["acme"].versions.views == {KeepLedger.name: "2"}
        assert ledger(tenants).totals().counted == 30
        assert found() == ["all"]


@ON_SERVERS
def test_lost_connection_during_a_rebuild(tenants: Tenancy) -> None:
    """The rebuild fails or goes on, and its next attempt finishes it."""
    fill(tenants, "acme", 400)
    engine = sa.create_engine(tenants.settings.url, isolation_level="AUTOCOMMIT")
    terminate = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    checks: list[int] = []

    def cut() -> None:
        checks.append(1)
        if len(checks) in (2, 4, 5):
            with engine.connect() as connection:
                connection.execute(terminate)

    item = Item(on_check=cut, on_save=lambda _: cut())
    for _ in range(10):
        try:
            rebuild(tenants, item)
        except OperationalError:
            continue
        break
    assert len(checks) > 5
    with tenants.runner() as runner:
        runner.wait("acme")
    assert ledger(tenants).content() == expected_content(tenants)
    assert spaces(tenants) == []
    engine.dispose()
