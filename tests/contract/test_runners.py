"""The library's runners: each application in its own schema or with its own prefix, all on one engine."""

from collections.abc import Callable, Iterator
from typing import Final
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.projection import EventSourcedProjectionRunner, ProjectionRunner
from eventsourcing.system import (
    MultiThreadedRunner,
    NewMultiThreadedRunner,
    NewSingleThreadedRunner,
    Runner,
    SingleThreadedRunner,
)
from eventsourcing.tests.projection import AggregateEventCountersProjection, Counters

from eventsourcing_sqlalchemy.engines.engine import EngineSource
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import SYSTEM, Diaries, Summaries
from tests.samples.training_school.views import CountersView
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.engine_count import engines_in_use, forget_abandoned
from tests.support.places import Place

RUNNERS: Final[tuple[type[Runner[UUID]], ...]] = (
    SingleThreadedRunner,
    NewSingleThreadedRunner,
    MultiThreadedRunner,
    NewMultiThreadedRunner,
)
DOGS: Final = [f"Dog {number}" for number in range(8)]
APPLICATIONS: Final[tuple[type[Application[UUID]], ...]] = (TrainingSchool, Diaries, Summaries)
SHARED_MEMORY: Final = "sqlite:///file:school?mode=memory&cache=shared&uri=true"


@pytest.fixture(params=["shared memory", "file", "psycopg2", "psycopg"])
def variables(request: pytest.FixtureRequest, place_url: Callable[[Place], str]) -> dict[str, str]:
    """The environment of a system whose applications each have their own place."""
    url = SHARED_MEMORY if request.param == "shared memory" else place_url(Place(database=request.param))
    place = "SQLALCHEMY_TABLE_PREFIX" if url.startswith("sqlite") else "SQLALCHEMY_SCHEMA"
    separator = "_" if url.startswith("sqlite") else ""
    return {
        "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
        "SQLALCHEMY_URL": url,
        place: "{application}_v1" + separator,
    }


@pytest.fixture
def spectator(variables: dict[str, str]) -> Iterator[sa.Engine]:
    """An engine of the test, which keeps an in-memory database alive after its last application."""
    engine = sa.create_engine(variables["SQLALCHEMY_URL"], poolclass=sa.NullPool)
    with engine.connect():
        yield engine
    engine.dispose()


def places_of(engine: sa.Engine) -> set[str]:
    """Return all tables of all schemas, as `schema.table` on databases with schemas."""
    inspector = sa.inspect(engine)
    schemas = [name for name in inspector.get_schema_names() if name != "information_schema"]
    return {
        name if schema == "main" else f"{schema}.{name}"
        for schema in schemas
        for name in inspector.get_table_names(schema=schema)
    }


def expected_places(engine: sa.Engine, tables: dict[str, tuple[str, ...]]) -> set[str]:
    separator = "_" if engine.dialect.name == "sqlite" else "."
    return {f"{name}_v1{separator}{name}_{table}" for name, names in tables.items() for table in names}


def is_done(runner: Runner[UUID]) -> bool:
    diaries, summaries = runner.get(Diaries).recorder, runner.get(Summaries).recorder
    return (
        diaries.max_tracking_id("TrainingSchool") == runner.get(TrainingSchool).recorder.max_notification_id()
        and summaries.max_tracking_id("Diaries") == diaries.max_notification_id()
    )


def serve(runner_class: type[Runner[UUID]], variables: dict[str, str]) -> list[list[str]]:
    """Run the school; return the topics that each application has recorded."""
    with runner_class(SYSTEM, env=variables) as runner:
        for name in DOGS:
            runner.get(TrainingSchool).register(name, "sit")
        wait_until(lambda: is_done(runner), "everything is summarized")
        assert len(engines_in_use()) == 1
        for cls in APPLICATIONS:
            factory = runner.get(cls).factory
            assert isinstance(factory, SQLAlchemyFactory)
            assert factory.datastore.engine.pool is engines_in_use()[0].engine.pool
        return [
            [notification.topic for notification in runner.get(cls).recorder.select_notifications(start=1, limit=99)]
            for cls in APPLICATIONS
        ]


@pytest.mark.parametrize("runner_class", RUNNERS)
def test_runner_processes_events_of_others_at_its_own_next_event(
    runner_class: type[Runner[UUID]], sqlite_url: str
) -> None:
    """As docs/following.md says. If the library improves, update the page."""
    variables = {
        "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
        "SQLALCHEMY_URL": sqlite_url,
        "SQLALCHEMY_TABLE_PREFIX": "{application}_",
    }
    with TrainingSchool(env=variables) as others:
        others.register("backlog", "sit")
        with runner_class(SYSTEM, env=variables) as runner:
            others.register("of another process", "sit")
            diaries, own = runner.get(Diaries).recorder, runner.get(TrainingSchool)
            assert diaries.max_tracking_id("TrainingSchool") is None
            own.register("own", "sit")
            wait_until(lambda: is_done(runner), "everything is summarized")
            assert diaries.max_notification_id() == 6


@pytest.mark.parametrize("runner_class", RUNNERS)
def test_runner_serves_each_application_in_its_own_place_on_one_engine(
    runner_class: type[Runner[UUID]], variables: dict[str, str], spectator: sa.Engine
) -> None:
    topics = serve(runner_class, variables)
    assert engines_in_use() == []
    expected = [
        ["Dog.Registered", "Dog.TrickAdded"] * len(DOGS),
        ["Diary.Begun", "Diary.Written"] * len(DOGS),
        ["Summary.Opened", *["Summary.Counted"] * len(DOGS)],
    ]
    assert [[topic.partition(":")[2] for topic in recorded] for recorded in topics] == expected
    tables = {"trainingschool": ("events",), "diaries": ("events", "tracking"), "summaries": ("events", "tracking")}
    assert places_of(spectator) == expected_places(spectator, tables)
    # The next run continues where this one ended.
    lengths = [len(recorded) for recorded in serve(runner_class, variables)]
    assert lengths == [4 * len(DOGS), 4 * len(DOGS), 1 + 2 * len(DOGS)]
    assert engines_in_use() == []


@pytest.mark.parametrize("variables", ["shared memory", "psycopg2"], indirect=True)
@pytest.mark.usefixtures("spectator")
def test_engines_are_counted(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that the test above can fail: an engine per application, as in the published package."""
    monkeypatch.setattr(EngineSource, "key", lambda _: object())
    with pytest.raises(AssertionError, match="== 1"):
        serve(SingleThreadedRunner, variables)
    forget_abandoned()


def count_with_projection(variables: dict[str, str]) -> None:
    with ProjectionRunner(
        application_class=Application[UUID],
        projection_class=AggregateEventCountersProjection,
        view_class=CountersView,
        env=variables,
    ) as runner:
        aggregate = Aggregate()
        aggregate.trigger_event(Aggregate.Event)
        recordings = runner.app.save(aggregate)
        runner.wait(recordings[-1].notification.id, timeout=DEADLINE_SECONDS)
        assert runner.view.get_created_event_counter() == 1
        assert runner.view.get_subsequent_event_counter() == 1
        assert len(engines_in_use()) == 1


def count_with_event_sourced_projection(variables: dict[str, str]) -> None:
    with EventSourcedProjectionRunner(
        application_class=Application[UUID], projection_class=Counters, env=variables
    ) as runner:
        recordings = runner.app.save(Aggregate())
        runner.wait(recordings[-1].notification.id, timeout=DEADLINE_SECONDS)
        assert runner.projection.get_count(Aggregate.Created) == 1
        assert len(engines_in_use()) == 1


def test_projection_runner_serves_application_and_view_on_one_engine(
    variables: dict[str, str], spectator: sa.Engine
) -> None:
    count_with_projection(variables)
    # The runner closes its application, and leaves its view to the garbage collector.
    forget_abandoned()
    assert engines_in_use() == []
    tables = {"application": ("events",), "eventcounters": ("tracking", "tracking_counters")}
    assert places_of(spectator) == expected_places(spectator, tables)


def test_event_sourced_projection_runner_serves_both_applications_on_one_engine(
    variables: dict[str, str], spectator: sa.Engine
) -> None:
    count_with_event_sourced_projection(variables)
    assert engines_in_use() == []
    tables = {"application": ("events",), "counters": ("events", "tracking")}
    assert places_of(spectator) == expected_places(spectator, tables)
