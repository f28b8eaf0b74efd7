"""The library's aggregate cache holds committed state only, however a transaction ends.

`WAYS_NOT_TO_COMMIT` change and read aggregates; the changes must not be visible afterwards, nor to other threads
meanwhile. `WAYS_TO_COMMIT` do the same, and the changes must be visible.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import ClassVar, Final
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.application import Cache
from eventsourcing.persistence import IntegrityError
from eventsourcing.utils import get_topic
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.invoices import Invoice, own_engine
from tests.support.applications import stored_events
from tests.support.deadlines import DEADLINE_SECONDS, run_together
from tests.support.forked import forks, in_child
from tests.support.places import Database, Place

# Every mode of the cache, and every driver: fast-forward, deepcopy.
MODES: Final[list[tuple[Database, str, str]]] = [
    ("file", "y", "y"),
    ("file", "y", "n"),
    ("file", "n", "y"),
    ("file", "n", "n"),
    ("psycopg2", "n", "y"),
    ("psycopg", "y", "n"),
    ("pg8000", "n", "n"),
]


class Scene:
    """An application with a cache, one without on the same tables, and the user's engine."""

    def __init__(self, school: TrainingSchool, uncached: TrainingSchool, engine: sa.Engine) -> None:
        self.school = school
        self.uncached = uncached
        self.engine = engine

    def change(self, dog_id: UUID, session: Session | None = None) -> UUID:
        """Teach a dog, register another one, and read both; return the new dog's id."""
        school = self.school
        dog: Dog = school.repository.get(dog_id)
        puppy = Dog("Puppy")
        dog.add_trick("fetch")
        school.save(dog, puppy, **({} if session is None else {"session": session}))
        for each in (dog_id, puppy.id):
            # Read in the transaction, so a careless cache would keep it; but outside the user's session.
            assert school.knows(each) == (session is None or each == dog_id)
        if session is None:
            assert self.tricks(dog_id) == ["fetch"]
        # Other threads have no transaction, so they see committed state.
        assert run_together([lambda: self.tricks(dog_id), lambda: school.knows(puppy.id)]) == [[], False]
        return puppy.id

    def tricks(self, dog_id: UUID) -> list[str]:
        """Return the dog's tricks according to the application."""
        dog: Dog = self.school.repository.get(dog_id)
        return dog.tricks


@pytest.fixture(params=MODES, ids="-".join)
def scene(request: pytest.FixtureRequest, place_url: Callable[[Place], str]) -> Iterator[Scene]:
    database, fastforward, deepcopy = request.param
    url = place_url(Place(database=database))
    env = {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": url}
    cache = {
        "AGGREGATE_CACHE_MAXSIZE": "100",
        "AGGREGATE_CACHE_FASTFORWARD": fastforward,
        "DEEPCOPY_FROM_AGGREGATE_CACHE": deepcopy,
    }
    with (
        own_engine(url) as engine,
        TrainingSchool({**env, **cache}) as school,
        TrainingSchool(env) as uncached,
    ):
        yield Scene(school, uncached, engine)


# -- ways not to commit --


def an_error(scene: Scene, dog_id: UUID) -> UUID:
    with suppress(ZeroDivisionError), scene.school.recorder.transaction():
        puppy = scene.change(dog_id)
        raise ZeroDivisionError
    return puppy


def an_interrupt(scene: Scene, dog_id: UUID) -> UUID:
    with suppress(KeyboardInterrupt), scene.school.recorder.transaction(), scene.school.recorder.transaction():
        puppy = scene.change(dog_id)
        raise KeyboardInterrupt
    return puppy


def a_commit_that_fails(scene: Scene, dog_id: UUID) -> UUID:
    with suppress(IntegrityError), scene.school.recorder.transaction() as session:
        puppy = scene.change(dog_id)
        session.add_all([Invoice(number=7)])
        session.flush()
        session.expunge_all()
        session.add(Invoice(number=7))
    return puppy


def a_savepoint(scene: Scene, dog_id: UUID) -> UUID:
    with scene.school.recorder.transaction() as session:
        savepoint = session.begin_nested()
        puppy = scene.change(dog_id)
        savepoint.rollback()
        assert scene.tricks(dog_id) == []
        assert not scene.school.knows(puppy)
    return puppy


def a_write_by_the_user(scene: Scene, _: UUID) -> UUID:
    """Reads inside the session also see the user's own writes."""
    puppy = stored_events()[0].originator_id
    assert isinstance(puppy, UUID)
    event = scene.uncached.events.mapper.to_stored_event(Dog("Puppy").collect_events()[0])
    with suppress(ZeroDivisionError), scene.school.recorder.transaction() as session:
        record = scene.school.recorder.events_record_cls
        session.add(record(originator_id=puppy, originator_version=1, topic=event.topic, state=event.state))
        session.flush()
        scene.school.knows(puppy)
        raise ZeroDivisionError
    return puppy


def a_session_rolled_back_later(scene: Scene, dog_id: UUID) -> UUID:
    with Session(scene.engine) as session:
        puppy = scene.change(dog_id, session)
        assert scene.tricks(dog_id) == []
        session.rollback()
    return puppy


def a_closed_session(scene: Scene, dog_id: UUID) -> UUID:
    with Session(scene.engine) as session:
        return scene.change(dog_id, session)


def a_garbage_collected_session(scene: Scene, dog_id: UUID) -> UUID:
    session = Session(scene.engine)
    puppy = scene.change(dog_id, session)
    del session
    gc.collect()
    return puppy


def a_session_on_a_connection_that_rolls_back(scene: Scene, dog_id: UUID) -> UUID:
    with scene.engine.connect() as connection, Session(connection) as session:
        connection.begin()
        puppy = scene.change(dog_id, session)
        session.commit()
        assert scene.tricks(dog_id) == []
    return puppy


def a_refused_save(scene: Scene, dog_id: UUID) -> UUID:
    dog: Dog = scene.school.repository.get(dog_id)
    puppy = Dog("Puppy")
    dog.add_trick("fetch")
    dog.pending_events.append(dog.pending_events[0])  # conflicts with itself
    with pytest.raises(IntegrityError):
        scene.school.save(puppy, dog)
    return puppy.id


WAYS_NOT_TO_COMMIT: Final[list[Callable[[Scene, UUID], UUID]]] = [
    an_error,
    an_interrupt,
    a_commit_that_fails,
    a_savepoint,
    a_write_by_the_user,
    a_session_rolled_back_later,
    a_closed_session,
    a_garbage_collected_session,
    a_session_on_a_connection_that_rolls_back,
    a_refused_save,
]


@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up:sqlalchemy.exc.SAWarning")
def test_uncommitted_state_is_not_cached(scene: Scene) -> None:
    for way in WAYS_NOT_TO_COMMIT:
        fido = scene.school.register("Fido")
        assert scene.tricks(fido) == []
        puppy = way(scene, fido)
        assert not scene.school.knows(puppy), way.__name__
        assert scene.tricks(fido) == [], way.__name__
        dog: Dog = scene.school.repository.get(fido)
        dog.add_trick("sit")
        scene.school.save(dog)
        versions = [event.originator_version for event in scene.school.recorder.select_events(fido)]
        assert versions == [1, 2], way.__name__
        assert scene.uncached.repository.get(fido).version == 2


# -- ways to commit --


def a_transaction(scene: Scene, dog_id: UUID) -> UUID:
    with scene.school.recorder.transaction():
        return scene.change(dog_id)


def a_session_that_commits_later(scene: Scene, dog_id: UUID) -> UUID:
    with Session(scene.engine) as session:
        puppy = scene.change(dog_id, session)
        assert scene.tricks(dog_id) == []
        session.commit()
        assert scene.tricks(dog_id) == ["fetch"]
    return puppy


def a_session_on_a_connection_that_commits(scene: Scene, dog_id: UUID) -> UUID:
    with scene.engine.begin() as connection, Session(connection) as session:
        puppy = scene.change(dog_id, session)
        session.commit()
        assert scene.tricks(dog_id) == []
    return puppy


WAYS_TO_COMMIT: Final = [a_transaction, a_session_that_commits_later, a_session_on_a_connection_that_commits]


def test_committed_state_is_visible(scene: Scene) -> None:
    for way in WAYS_TO_COMMIT:
        fido = scene.school.register("Fido")
        assert scene.tricks(fido) == []
        puppy = way(scene, fido)
        assert scene.school.knows(puppy), way.__name__
        assert scene.tricks(fido) == ["fetch"], way.__name__


def test_conflict_evicts_a_stale_copy(scene: Scene) -> None:
    """Without fast-forward, every retry would read the stale copy again."""
    fido = scene.school.register("Fido")
    scene.tricks(fido)
    dog: Dog = scene.uncached.repository.get(fido)
    dog.add_trick("fetch")
    scene.uncached.save(dog)
    for attempt in range(2):
        mine: Dog = scene.school.repository.get(fido)
        mine.add_trick("sit")
        try:
            scene.school.save(mine)
            break
        except IntegrityError:
            assert attempt == 0
    assert scene.tricks(fido) == ["fetch", "sit"]


@pytest.mark.parametrize("scene", [("file", "n", "y")], indirect=True)
def test_cache_is_used_outside_of_transactions(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = scene.school.repository.cache
    assert isinstance(cache, Cache)
    fido = scene.school.register("Fido")
    assert scene.tricks(fido) == []
    monkeypatch.setattr(scene.school.repository, "_reconstruct_aggregate", None)
    assert scene.tricks(fido) == []
    assert cache.get(fido, evict=True).id == fido
    with pytest.raises(KeyError):
        cache.get(fido)


@forks
@pytest.mark.parametrize("scene", [("psycopg2", "n", "y")], indirect=True)
def test_forked_child_does_not_wait_for_a_thread_of_its_parent(scene: Scene) -> None:
    fido = scene.school.register("Fido")
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with scene.school.recorder.aggregate_caches._lock:  # noqa: SLF001 (held briefly, but a fork can coincide)
            is_held.set()
            may_end.wait(DEADLINE_SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert is_held.wait(DEADLINE_SECONDS)
        assert in_child(lambda: scene.tricks(fido)) == []
    finally:
        may_end.set()
        thread.join()


# -- a framework's session --


class Framework:
    """A web framework's sessions: one per request, here one per thread."""

    session: ClassVar[scoped_session[Session]]


def framework_session() -> scoped_session[Session]:
    return Framework.session


@pytest.mark.parametrize("fastforward", "yn")
@pytest.mark.parametrize("database_url", ["file", "psycopg2", "psycopg", "pg8000"], indirect=True)
def test_rolled_back_scoped_session_leaves_nothing_in_the_cache(database_url: str, fastforward: str) -> None:
    env = {
        "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
        "SQLALCHEMY_SCOPED_SESSION_TOPIC": get_topic(framework_session),
        "AGGREGATE_CACHE_MAXSIZE": "100",
        "AGGREGATE_CACHE_FASTFORWARD": fastforward,
    }
    with own_engine(database_url) as engine:
        Framework.session = scoped_session(sessionmaker(bind=engine))
        with TrainingSchool(env) as school:
            fido = school.register("Fido")
            assert school.knows(fido)
            Framework.session.rollback()
            assert not school.knows(fido)
            fido = school.register("Fido")
            Framework.session.commit()
            for end, versions in ((Framework.session.rollback, 1), (Framework.session.commit, 2)):
                dog: Dog = school.repository.get(fido)
                dog.add_trick("fetch")
                school.save(dog)
                assert school.repository.get(fido).version == 2
                end()
                assert school.repository.get(fido).version == versions
            Framework.session.remove()
