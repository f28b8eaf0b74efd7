"""Rebuilds that are refused, fail or die: the old view serves, and the next attempt finishes."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError

from tenancy import Tenancy
from tenancy.errors import TenancyError
from tenancy.model.tenant import Action
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.ledger import KeepLedger, Ledger
from tests.support.job_items import Item
from tests.support.rebuilds import expected_content, ledger, objects, rebuild, spaces

BOTH = pytest.mark.parametrize("place", ["psycopg", "sqlite"], indirect=True)
EVERYWHERE = pytest.mark.parametrize(
    "place", ["psycopg", "prefix", "sqlite", "sqlite with another registry"], indirect=True
)


class Died(BaseException):
    """The process was killed."""


def die() -> None:
    raise Died


@pytest.mark.parametrize("phase", ["filling", "swapping", "replaced"])
@EVERYWHERE
def test_rebuild_that_dies_after_a_phase_resumes(tenants: Tenancy, phase: str) -> None:
    before = objects(tenants)
    died: list[int] = []

    def on_save(progress: Any) -> None:
        if progress[KeepLedger.name]["phase"] == phase and not died:
            died.append(1)
            die()

    item = Item(on_save=on_save)
    with pytest.raises(Died):
        rebuild(tenants, item)
    assert ledger(tenants).content() == expected_content(tenants)
    rebuild(tenants, item)
    assert ledger(tenants).content() == expected_content(tenants)
    assert objects(tenants) == before
    assert [each.action for each in tenants.history("acme")].count("rebuild") == 1


@EVERYWHERE
def test_rebuild_that_dies_before_the_registry_commits(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables may be replaced by then, and another attempt must not replace them with nothing."""
    item = Item()
    with monkeypatch.context() as patched:
        patched.setattr(type(tenants.fleet.registry), "change", lambda *_, **__: die())
        patched.setattr(Ledger, "version", "3", raising=False)
        with pytest.raises(Died):
            rebuild(tenants, item)
    assert ledger(tenants).content() == expected_content(tenants)
    monkeypatch.setattr(Ledger, "version", "3", raising=False)
    rebuild(tenants, item)
    assert ledger(tenants).content() == expected_content(tenants)
    assert tenants["acme"].versions.views == {KeepLedger.name: "3"}
    assert spaces(tenants) == []
    assert tenants.history("acme")[-1].action == Action.REBUILD


@BOTH
def test_shadow_of_another_version_is_not_continued(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []

    def on_save(progress: Any) -> None:
        saved.append(progress)
        if len(saved) == 2:
            die()

    item = Item(on_save=on_save)
    with pytest.raises(Died):  # when it is filled
        rebuild(tenants, item)
    monkeypatch.setattr(Ledger, "version", "2", raising=False)
    assert rebuild(tenants, item) == "rebuilt from 30 notifications"
    other = Item(on_check=die)
    with pytest.raises(Died):
        rebuild(tenants, other)
    assert rebuild(tenants) == "rebuilt from 30 notifications"
    assert ledger(tenants).content() == expected_content(tenants)


@pytest.mark.parametrize("place", ["psycopg", "psycopg2", "pg8000"], indirect=True)
@pytest.mark.parametrize("what", ["the view", "a foreign key", "a column"])
def test_tables_that_others_depend_on_are_not_replaced(tenants: Tenancy, what: str) -> None:
    view = ledger(tenants)
    dogs, kind = view.dogs.fullname, f"{view.schema_name}.{view.tracking_table_name}_kind"
    statements = {
        "the view": f"CREATE VIEW reports AS SELECT name FROM {dogs}",
        "a foreign key": f"CREATE TABLE reports (dog integer REFERENCES {dogs})",
        "a column": f"CREATE TABLE reports (kind {kind})",
    }
    with tenants.fleet.shard.datastore.engine.begin() as connection:
        connection.exec_driver_sql(statements[what])
    with pytest.raises(TenancyError, match=f"used by: {what}.*reports") as raised:
        rebuild(tenants)
    assert "Drop it" in raised.value.remedy
    assert view.content() == expected_content(tenants)
    with tenants.fleet.shard.datastore.engine.begin() as connection:
        connection.exec_driver_sql("DROP VIEW reports" if what == "the view" else "DROP TABLE reports")
    rebuild(tenants)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", ["the view", "a foreign key"])
def test_tables_that_others_depend_on_are_not_replaced_in_a_file(tenants: Tenancy, what: str) -> None:
    dogs = ledger(tenants).dogs.name
    statements = {
        "the view": f"CREATE VIEW reports AS SELECT name FROM {dogs}",
        "a foreign key": f"CREATE TABLE reports (dog integer REFERENCES {dogs})",
    }
    with tenants.fleet.shard.datastore.engine.begin() as connection:
        connection.exec_driver_sql(statements[what])
    with pytest.raises(TenancyError, match=f"used by: {what}.*reports"):
        rebuild(tenants)
    assert ledger(tenants).content() == expected_content(tenants)


@BOTH
def test_dependent_that_appears_during_the_rebuild(tenants: Tenancy) -> None:
    view = ledger(tenants)
    statement = f"CREATE VIEW reports AS SELECT name FROM {view.dogs.fullname}"

    created: list[int] = []

    def create() -> None:
        if not created:
            created.append(1)
            with tenants.fleet.shard.datastore.engine.begin() as connection:
                connection.exec_driver_sql(statement)

    item = Item(on_check=create)
    with pytest.raises(TenancyError, match="the view reports"):
        rebuild(tenants, item)
    with tenants.fleet.shard.datastore.engine.begin() as connection:
        connection.exec_driver_sql("DROP VIEW reports")
    rebuild(tenants, item)
    assert view.content() == expected_content(tenants)


@BOTH
def test_notification_that_cannot_be_processed(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Ledger.add_dog

    def poisoned(view: Ledger, dog: str, name: str, tracking: Any) -> None:
        if name == "dog 5":
            msg = "secret"
            raise ValueError(msg)
        add(view, dog, name, tracking)

    item = Item()
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "add_dog", poisoned)
        with pytest.raises(TenancyError, match="cannot process notification 16 of 'TrainingSchool'") as raised:
            rebuild(tenants, item)
    assert "ValueError" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert ledger(tenants).content() == expected_content(tenants)
    assert rebuild(tenants, item) == "rebuilt from 15 notifications"
    assert ledger(tenants).content() == expected_content(tenants)


@BOTH
def test_view_that_catches_errors_of_the_database(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a batch, such an error ends a transaction of its own."""
    add = Ledger.add_trick

    def careless(view: Ledger, dog: str, trick: str, tracking: Any) -> None:
        if trick == "sit":
            with pytest.raises(IntegrityError), view.transaction() as session:
                session.execute(sa.insert(view.dogs).values(dog=dog, name="again", kind="small", code="a"))
        add(view, dog, trick, tracking)

    monkeypatch.setattr(Ledger, "add_trick", careless)
    assert rebuild(tenants) == "rebuilt from 30 notifications"
    assert ledger(tenants).content() == expected_content(tenants)


@pytest.mark.parametrize("place", ["psycopg", "psycopg2", "pg8000"], indirect=True)
def test_privileges_are_granted_on_the_new_tables(tenants: Tenancy) -> None:
    view, role = ledger(tenants), f"reader_{tenants['acme'].id.hex[:8]}"
    query = sa.text(
        "SELECT relname, relacl::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = :schema AND relkind IN ('r', 'S') AND relname LIKE 'keepledger%' ORDER BY relname"
    )
    engine = tenants.fleet.shard.datastore.engine

    def privileges() -> list[tuple[str, str]]:
        with engine.connect() as connection:
            return [(name, acl) for name, acl in connection.execute(query, {"schema": view.schema_name})]

    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role}")
        connection.exec_driver_sql(f"GRANT SELECT ON {view.dogs.fullname} TO {role} WITH GRANT OPTION")
        connection.exec_driver_sql(f"GRANT SELECT, UPDATE ON {view.tracking_table.fullname} TO PUBLIC")
        connection.exec_driver_sql(f"GRANT USAGE ON SEQUENCE {view.dogs.fullname}_id_seq TO {role}")
    try:
        before = privileges()
        assert role in str(before)
        rebuild(tenants)
        assert privileges() == before
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")


def test_two_rebuilds_of_one_view(tenants: Tenancy) -> None:
    """The second one begins again, and the first one notices."""
    second: list[str] = []

    def other() -> None:
        if not second:
            second.append(rebuild(tenants))

    with pytest.raises(TenancyError, match="another process"):
        rebuild(tenants, Item(on_check=other))
    assert second == ["rebuilt from 30 notifications"]
    assert ledger(tenants).content() == expected_content(tenants)
    assert tenants["acme"].get(TrainingSchool).repository.get(next(iter_dogs(tenants))).name == "dog 0"
    assert spaces(tenants) == []


def iter_dogs(tenants: Tenancy) -> Any:
    """Yield the ids of dogs."""
    for notification in tenants["acme"].get(TrainingSchool).recorder.select_notifications(start=None, limit=100):
        if notification.topic.endswith(Dog.Registered.__qualname__):
            yield notification.originator_id
