"""How applications find this package, and how the environment configures it."""

import inspect
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.persistence import IntegrityError, InterfaceError, ProgrammingError
from eventsourcing.utils import Environment, get_topic
from sqlalchemy.pool import QueuePool

from eventsourcing_sqlalchemy import factory as factory_module
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.errors import SettingsError, is_retryable
from eventsourcing_sqlalchemy.factory import Factory, SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import (
    SQLAlchemyAggregateRecorder,
    SQLAlchemyApplicationRecorder,
    SQLAlchemyProcessRecorder,
    SQLAlchemyRecorder,
    SQLAlchemyTrackingRecorder,
)
from tests.samples.training_school.application import TrainingSchool
from tests.support.applications import stored_events
from tests.support.engine_count import engines_in_use


class MyAggregateRecorder(SQLAlchemyAggregateRecorder):
    """The user's class."""


class MyApplicationRecorder(SQLAlchemyApplicationRecorder):
    """The user's class."""


class MyTrackingRecorder(SQLAlchemyTrackingRecorder):
    """The user's class."""


class MyProcessRecorder(SQLAlchemyProcessRecorder):
    """The user's class."""


class MyDatastore(SQLAlchemyDatastore):
    """The user's class."""


class MyFactory(SQLAlchemyFactory):
    """The user's class."""

    datastore_class = MyDatastore
    aggregate_recorder_class = MyAggregateRecorder
    application_recorder_class = MyApplicationRecorder
    tracking_recorder_class = MyTrackingRecorder
    process_recorder_class = MyProcessRecorder


MY_RECORDERS = {
    "AGGREGATE_RECORDER_TOPIC": MyAggregateRecorder,
    "APPLICATION_RECORDER_TOPIC": MyApplicationRecorder,
    "TRACKING_RECORDER_TOPIC": MyTrackingRecorder,
    "PROCESS_RECORDER_TOPIC": MyProcessRecorder,
}


def recorders_of(factory: SQLAlchemyFactory) -> list[type]:
    return [
        type(factory.aggregate_recorder()),
        type(factory.application_recorder()),
        type(factory.tracking_recorder()),
        type(factory.process_recorder()),
    ]


@pytest.mark.parametrize(
    "topic",
    [
        "eventsourcing_sqlalchemy",
        "eventsourcing_sqlalchemy.factory",
        "eventsourcing_sqlalchemy:SQLAlchemyFactory",
        "eventsourcing_sqlalchemy.factory:SQLAlchemyFactory",
        "eventsourcing_sqlalchemy.factory:Factory",
    ],
)
def test_every_form_of_persistence_module_is_found(topic: str) -> None:
    with TrainingSchool(env={"PERSISTENCE_MODULE": topic, "SQLALCHEMY_URL": "sqlite://"}) as school:
        assert type(school.factory) is SQLAlchemyFactory
        school.register("Fido")
        assert school.names() == ["Fido"]


def test_repr_of_an_application_shows_its_tables_and_of_another_module_is_the_librarys() -> None:
    with TrainingSchool(
        env={
            "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
            "SQLALCHEMY_URL": "sqlite://",
            "SQLALCHEMY_TABLE_PREFIX": "acme_",
        }
    ) as school:
        assert repr(school).startswith("TrainingSchool(SQLAlchemy")
        assert '"acme_trainingschool_events"' in repr(school)
    with TrainingSchool(env={"PERSISTENCE_MODULE": "eventsourcing.popo"}) as school:
        assert repr(school) == object.__repr__(school)


def test_names_of_the_variables_are_attributes_of_the_factory() -> None:
    assert Factory is SQLAlchemyFactory
    names = {
        "SQLALCHEMY_URL",
        "SQLALCHEMY_SCHEMA",
        "SQLALCHEMY_TABLE_PREFIX",
        "SQLALCHEMY_AUTOFLUSH",
        "SQLALCHEMY_SCOPED_SESSION_TOPIC",
        "SQLALCHEMY_CONNECTION_CREATOR_TOPIC",
        "SQLALCHEMY_ENGINE_TOPIC",
        "ORIGINATOR_ID_TYPE",
        "CREATE_TABLE",
        *MY_RECORDERS,
    }
    assert {name: getattr(SQLAlchemyFactory, name, None) for name in names} == {name: name for name in names}


def test_users_factory_chooses_its_classes() -> None:
    env = {"PERSISTENCE_MODULE": get_topic(MyFactory), "SQLALCHEMY_URL": "sqlite://"}
    with Application[UUID](env=env) as app:
        assert type(app.factory) is MyFactory
        assert type(app.factory.datastore) is MyDatastore
        assert recorders_of(app.factory) == list(MY_RECORDERS.values())


@pytest.mark.parametrize("name", ["School", "acme-school"])
@pytest.mark.parametrize("variable", MY_RECORDERS)
def test_topic_chooses_the_class_of_a_recorder(variable: str, name: str) -> None:
    prefix = {"School": "SCHOOL_", "acme-school": "ACME_SCHOOL_"}[name]
    env = {"SQLALCHEMY_URL": "sqlite://", f"{prefix}{variable}": get_topic(MY_RECORDERS[variable])}
    factory = SQLAlchemyFactory(Environment(name, env))
    chosen = [cls for cls in recorders_of(factory) if not cls.__module__.startswith("eventsourcing_sqlalchemy")]
    assert chosen == [MY_RECORDERS[variable]]
    factory.close()


@pytest.mark.parametrize("variable", MY_RECORDERS)
@pytest.mark.parametrize("topic", ["no_such_module:name", "builtins:dict", get_topic(SQLAlchemyRecorder)])
def test_topic_of_a_recorder_must_name_one(variable: str, topic: str) -> None:
    factory = SQLAlchemyFactory({"SQLALCHEMY_URL": "sqlite://", variable: topic})
    with pytest.raises(SettingsError, match="application") as raised:
        recorders_of(factory)
    assert variable in str(raised.value)
    assert topic in str(raised.value)
    factory.close()


def test_close_may_be_called_twice_and_releases_the_engine() -> None:
    factory = SQLAlchemyFactory({"SQLALCHEMY_URL": "sqlite://"})
    other = SQLAlchemyFactory({"SQLALCHEMY_URL": "sqlite://"})
    factory.close()
    factory.close()
    assert len(engines_in_use()) == 1
    other.application_recorder()
    other.close()
    assert engines_in_use() == []


SHARED_MEMORY = "sqlite:///file:shared?mode=memory&cache=shared&uri=true"


def test_engine_of_a_closed_application_is_disposed_and_that_of_another_is_not(database_url: str) -> None:
    """Users of the published package dispose of the engine, because its close() closes nothing."""
    for url in (database_url, SHARED_MEMORY):
        factory, other = SQLAlchemyFactory({"SQLALCHEMY_URL": url}), SQLAlchemyFactory({"SQLALCHEMY_URL": url})
        recorder, others = factory.application_recorder(), other.application_recorder()
        recorder.insert_events(stored_events())
        factory.close()
        pool_of_other = other.datastore.engine.pool
        engine = factory.datastore.engine
        engine.dispose()
        assert engine is factory.datastore.engine
        assert isinstance(engine.pool, QueuePool)
        assert engine.pool.checkedin() == 0
        assert engine.url == other.datastore.engine.url
        assert other.datastore.engine.pool is pool_of_other  # disposing of an engine gives it another pool
        assert others.max_notification_id() == 1
        with pytest.raises(InterfaceError, match="is closed"):
            recorder.insert_events(stored_events())
        with pytest.raises(InterfaceError, match="is closed"), factory.datastore.get_connection():
            pass
        other.close()
        other.datastore.engine.dispose()


def test_users_engine_is_unchanged_after_close(database_url: str) -> None:
    engine = sa.create_engine(database_url, poolclass=QueuePool)
    datastore = SQLAlchemyDatastore(engine=engine)
    with datastore.get_connection():
        pass
    datastore.close()
    assert datastore.engine is engine
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedin() == 1
    engine.dispose()


def test_tables_are_not_created_when_switched_off(database_url: str) -> None:
    factory = SQLAlchemyFactory({"SQLALCHEMY_URL": database_url, "CREATE_TABLE": "no"})
    try:
        assert not factory.env_create_table()
        recorder = factory.process_recorder()
        assert isinstance(recorder, SQLAlchemyProcessRecorder)
        with pytest.raises(ProgrammingError, match=r'"stored_events".*CREATE_TABLE=yes') as raised:
            recorder.insert_events(stored_events())
        assert not is_retryable(raised.value)
        with pytest.raises(ProgrammingError, match=r'"notification_tracking".*CREATE_TABLE=yes'):
            recorder.max_tracking_id("upstream")
        with recorder.transaction(), pytest.raises(ProgrammingError, match=r'"stored_events".*CREATE_TABLE=yes'):
            recorder.insert_events(stored_events())
        assert sa.inspect(factory.datastore.engine).get_table_names() == []
    finally:
        factory.close()


@pytest.mark.parametrize(("value", "expected"), [(None, True), ("yes", True), ("no", False)])
def test_autoflush_follows_the_variable(value: str | None, expected: bool) -> None:
    env = {"SQLALCHEMY_URL": "sqlite://"} | ({} if value is None else {"SQLALCHEMY_AUTOFLUSH": value})
    factory = SQLAlchemyFactory(env)
    assert factory.datastore.session_maker.kw["autoflush"] is expected
    with factory.datastore.transaction() as session:
        assert session.autoflush is expected
    factory.datastore.session_maker.kw["autoflush"] = not expected
    with factory.datastore.transaction() as session:
        assert session.autoflush is not expected
    factory.close()


def test_recorders_accept_the_keywords_of_the_published_package() -> None:
    datastore = SQLAlchemyDatastore(url="sqlite://", autoflush=False)
    events = SQLAlchemyAggregateRecorder(datastore=datastore, events_table_name="a", schema_name=None)
    snapshots = SQLAlchemyAggregateRecorder(datastore=datastore, events_table_name="b", for_snapshots=True)
    application = SQLAlchemyApplicationRecorder(datastore, events_table_name="c", schema_name="")
    positions = SQLAlchemyTrackingRecorder(datastore, tracking_table_name="d")
    process = SQLAlchemyProcessRecorder(datastore, events_table_name="e", tracking_table_name="f")
    assert [recorder.events_table_name for recorder in (events, snapshots, application, process)] == list("abce")
    assert [recorder.tracking_table_name for recorder in (positions, process)] == list("df")
    assert SQLAlchemyApplicationRecorder(datastore).events_table_name == "stored_events"
    assert SQLAlchemyTrackingRecorder(datastore).tracking_table_name == "notification_tracking"
    for recorder in (events, snapshots, application, positions, process):
        recorder.create_table()
        recorder.check_identifier_length("x" * 1000)  # SQLite has no limit for names.
    datastore.close()


def test_datastore_accepts_the_keywords_of_the_published_package() -> None:
    keywords = inspect.signature(SQLAlchemyDatastore.__init__).parameters
    assert {"session", "session_maker", "url", "autoflush"} <= set(keywords)
    assert all(
        parameter.kind != parameter.POSITIONAL_OR_KEYWORD for name, parameter in keywords.items() if name != "self"
    )
    assert any(parameter.kind == parameter.VAR_KEYWORD for parameter in keywords.values())
    with pytest.raises(ProgrammingError, match="url"):
        SQLAlchemyDatastore()


def test_equal_environment_names_of_different_applications_are_an_error() -> None:
    env = {"SQLALCHEMY_URL": "sqlite://"}
    first = SQLAlchemyFactory(Environment("acme-school", env))
    twin = SQLAlchemyFactory(Environment("acme-school", env))
    with pytest.raises(SettingsError, match=r"'acme-school' and 'acme_school'.*ACME_SCHOOL_"):
        SQLAlchemyFactory(Environment("acme_school", env))
    with pytest.raises(SettingsError, match="ACME_SCHOOL_"):
        SQLAlchemyFactory(Environment("Acme-School", env))
    first.close()
    twin.close()
    del first, twin
    SQLAlchemyFactory(Environment("acme_school", env)).close()


def test_unnamed_applications_may_coexist() -> None:
    factories = [SQLAlchemyFactory({"SQLALCHEMY_URL": "sqlite://"}) for _ in range(2)]
    for factory in factories:
        factory.application_recorder().insert_events(events := stored_events())
        with pytest.raises(IntegrityError):
            factory.application_recorder().insert_events(events)
        factory.close()


def test_factory_module_lists_its_exports() -> None:
    assert {"SQLAlchemyFactory", "Factory"} <= set(factory_module.__all__)
