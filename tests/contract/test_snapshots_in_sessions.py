"""Snapshots that the library takes in `save` use the session of the save, and commit with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.domain import MutableOrImmutableAggregate
from eventsourcing.utils import get_topic
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.invoices import own_engine

pytestmark = pytest.mark.parametrize("database_url", ["file", "psycopg2", "psycopg", "pg8000"], indirect=True)


class SnapshottingSchool(TrainingSchool):
    """Takes a snapshot of a dog at each version."""

    snapshotting_intervals: ClassVar[dict[type[MutableOrImmutableAggregate[Any]], int]] = {Dog: 1}

    def snapshot_versions(self, dog_id: UUID) -> list[int]:
        """Return the versions of the committed snapshots."""
        assert self.snapshots is not None
        return [snapshot.originator_version for snapshot in self.snapshots.get(dog_id)]


class Framework:
    """A web framework's session."""

    session: ClassVar[scoped_session[Session]]


def framework_session() -> scoped_session[Session]:
    return Framework.session


@pytest.fixture(params=["own", "scoped"])
def school(request: pytest.FixtureRequest, database_url: str, engine: sa.Engine) -> Iterator[SnapshottingSchool]:
    """An application with its own engine, or with a scoped session besides that of the save."""
    env = {
        "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
        "AGGREGATE_CACHE_MAXSIZE": "10",
        "AGGREGATE_CACHE_FASTFORWARD": "n",
    }
    if request.param == "own":
        env["SQLALCHEMY_URL"] = database_url
    else:
        Framework.session = scoped_session(sessionmaker(bind=engine))
        env["SQLALCHEMY_SCOPED_SESSION_TOPIC"] = get_topic(framework_session)
    with SnapshottingSchool(env) as school:
        yield school
    if request.param == "scoped":
        Framework.session.remove()


def test_snapshots_commit_with_the_session_of_the_save(school: SnapshottingSchool, engine: sa.Engine) -> None:
    dog = Dog("Fido")
    with Session(engine) as session:
        school.save(dog, session=session)
        dog.add_trick("fetch")
        dog.add_trick("roll over")
        school.save(dog, session=session)
        with own_engine(engine.url.render_as_string(hide_password=False)) as other, Session(other) as outside:
            table = school.recorder.events_table
            assert outside.scalar(sa.select(sa.func.count()).select_from(table)) == 0
        session.commit()
    assert school.snapshot_versions(dog.id) == [1, 2, 3]
    assert [school.repository.get(dog.id, version=version).version for version in (1, 2, 3)] == [1, 2, 3]


def test_snapshots_roll_back_with_the_session_of_the_save(school: SnapshottingSchool, engine: sa.Engine) -> None:
    dog, puppy = Dog("Fido"), Dog("Puppy")
    with Session(engine) as session:
        school.save(dog, session=session)
        session.commit()
        dog.add_trick("fetch")
        school.save(dog, puppy, session=session)
        session.rollback()
    assert school.snapshot_versions(dog.id) == [1]
    assert not school.knows(puppy.id)
    again: Dog = school.repository.get(dog.id)
    again.add_trick("sit")
    with Session(engine) as session, session.begin():
        school.save(again, session=session)
    assert school.snapshot_versions(dog.id) == [1, 2]
    found: Dog = school.repository.get(dog.id)
    assert found.tricks == ["sit"]


def test_reads_after_the_save_are_outside_its_session(school: SnapshottingSchool, engine: sa.Engine) -> None:
    with Session(engine) as session:
        dog = Dog("Fido")
        school.save(dog, session=session)
        assert not school.knows(dog.id)
        session.rollback()
