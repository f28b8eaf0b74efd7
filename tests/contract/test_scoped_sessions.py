"""Sessions that a framework opens, commits and closes, with the two styles of adapters that users write.

One is a plain class that delegates to the framework's session, the other a subclass of `scoped_session`.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError
from eventsourcing.utils import get_topic
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.transactions import Transaction
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.invoices import Invoice, invoices, own_engine
from tests.support.applications import stored_events
from tests.support.deadlines import run_together


class WatchedSession(Session):
    """A session that notes the calls that end its transactions or close it."""

    ended: ClassVar[list[str]] = []

    def commit(self) -> None:
        self.ended.append("commit")
        super().commit()

    def rollback(self) -> None:
        self.ended.append("rollback")
        super().rollback()

    def close(self) -> None:
        self.ended.append("close")
        super().close()


class Framework:
    """A web framework's sessions: one per request, here one per thread."""

    session: ClassVar[scoped_session[WatchedSession]]


class PassesEverythingOn:
    """The style of the recipes for Flask-SQLAlchemy and FastAPI-SQLAlchemy."""

    def __getattribute__(self, name: str) -> Any:
        return getattr(Framework.session, name)


class IsScopedSession(scoped_session[WatchedSession]):
    """The style of users who matched the expected type."""

    def __init__(self) -> None:
        super().__init__(Framework.session.session_factory)
        self.registry = Framework.session.registry


class IsScopedSessionAndPassesEverythingOn(scoped_session[WatchedSession]):
    """Both at once."""

    def __init__(self) -> None:
        """Create nothing, because the framework's session is used."""

    def __getattribute__(self, name: str) -> Any:
        return getattr(Framework.session, name)


ADAPTERS: list[Callable[[], Any]] = [PassesEverythingOn, IsScopedSession, IsScopedSessionAndPassesEverythingOn]


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The framework's engine."""
    with own_engine(database_url) as engine:
        Framework.session = scoped_session(sessionmaker(bind=engine, class_=WatchedSession))
        WatchedSession.ended.clear()
        yield engine
        Framework.session.remove()


@pytest.fixture(params=ADAPTERS)
def variables(request: pytest.FixtureRequest, engine: sa.Engine) -> dict[str, str]:  # noqa: ARG001 (found through the topic)
    """The environment; the session takes precedence over the URL."""
    return {
        "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
        "SQLALCHEMY_URL": "sqlite:////nowhere/at/all.db",
        "SQLALCHEMY_SCOPED_SESSION_TOPIC": get_topic(request.param),
        "IS_SNAPSHOTTING_ENABLED": "yes",
    }


def use_everything(school: TrainingSchool) -> list[str]:
    """Write, read and fail; return the calls that ended the session."""
    WatchedSession.ended.clear()
    fido = school.register("Fido")
    Framework.session.add(Invoice(number=1))
    assert school.knows(fido)
    school.take_snapshot(fido)
    with pytest.raises(IntegrityError):
        school.recorder.insert_events(stored_events(1, fido))
    with school.recorder.transaction() as session:
        session.add(Invoice(number=2))
        school.register("Rex")
    assert school.names() == ["Fido", "Rex"]
    return list(WatchedSession.ended)


def test_user_commits_the_session(variables: dict[str, str], engine: sa.Engine) -> None:
    with TrainingSchool(env=variables) as school:
        assert use_everything(school) == []
        assert invoices(engine) == []
        Framework.session.commit()
        assert invoices(engine) == [1, 2]
        assert school.names() == ["Fido", "Rex"]
    assert WatchedSession.ended == ["commit"]


def test_user_rolls_back_the_session(variables: dict[str, str], engine: sa.Engine) -> None:
    with TrainingSchool(env=variables) as school:
        assert use_everything(school) == []
        Framework.session.rollback()
        assert invoices(engine) == []
        assert school.names() == []
        school.register("Rex")
        Framework.session.commit()
        assert school.names() == ["Rex"]


def test_error_in_the_users_block_does_not_end_the_session(variables: dict[str, str]) -> None:
    with TrainingSchool(env=variables) as school:
        WatchedSession.ended.clear()
        with suppress(ZeroDivisionError), school.recorder.transaction():
            school.register("Fido")
            raise ZeroDivisionError
        assert WatchedSession.ended == []
        assert school.names() == ["Fido"]
        Framework.session.rollback()
        assert school.names() == []


def test_ending_the_users_transaction_is_noticed(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that the tests above can fail: a block that commits an external session."""
    leave = Transaction.__exit__

    def leave_and_commit(transaction: Transaction, *exc_info: Any) -> None:
        leave(transaction, *exc_info)
        Framework.session.commit()

    monkeypatch.setattr(Transaction, "__exit__", leave_and_commit)
    with TrainingSchool(env=variables) as school, pytest.raises(AssertionError):
        assert use_everything(school) == []


def test_each_thread_has_its_own_session(variables: dict[str, str]) -> None:
    with TrainingSchool(env=variables) as school:

        def request(name: str) -> bool:
            try:
                dog = Dog(name)
                school.save(dog)
                Framework.session.commit()
                return school.knows(dog.id)
            finally:
                Framework.session.remove()

        assert run_together([partial(request, "Fido"), partial(request, "Rex")]) == [True, True]
        assert sorted(school.names()) == ["Fido", "Rex"]
        Framework.session.remove()


def test_subscription_receives_what_the_user_commits(variables: dict[str, str]) -> None:
    with TrainingSchool(env=variables) as school:
        school.register("Fido")
        Framework.session.commit()
        with school.recorder.subscribe() as subscription:
            assert next(subscription).id == 1
            school.register("Rex")
            Framework.session.commit()
            assert next(subscription).id == 2


@pytest.mark.usefixtures("engine")
def test_topic_may_name_a_function() -> None:
    env = {"SQLALCHEMY_SCOPED_SESSION_TOPIC": f"{__name__}:framework_session"}
    factory = SQLAlchemyFactory(env)
    assert factory.datastore.scoped_session is Framework.session
    factory.application_recorder().insert_events(stored_events())
    Framework.session.rollback()
    factory.close()


def framework_session() -> scoped_session[WatchedSession]:
    return Framework.session
