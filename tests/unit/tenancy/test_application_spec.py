"""The application spec, read from the class, lists the tables that constructing the application creates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.persistence import ApplicationRecorder
from eventsourcing.system import ProcessApplication

from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tenancy.model.application_spec import ApplicationSpec, application_spec_of
from tenancy.model.placement import Placement


class Plain(Application[UUID]):
    pass


class Snapshots(Application[UUID]):
    is_snapshotting_enabled = True


class Intervals(Application[UUID]):
    snapshotting_intervals: ClassVar[Any] = {object: 5}


class Process(ProcessApplication[UUID]):
    def policy(self, domain_event: Any, processing_event: Any) -> None:
        """Do nothing."""


class SnapshotsOfProcess(Process):
    is_snapshotting_enabled = True


class TextIds(Application[str]):
    env: ClassVar[dict[str, str]] = {"ORIGINATOR_ID_TYPE": "text"}


class Overridden(Application[UUID]):
    def construct_recorder(self) -> ApplicationRecorder:
        return super().construct_recorder()


class Recorder(SQLAlchemyApplicationRecorder):
    """A user's recorder."""


class Dashed(Application[UUID]):
    name = "acme-school"


CASES: list[tuple[type[Application[Any]], dict[str, str], bool]] = [
    (Plain, {}, False),
    (Snapshots, {}, False),
    (Intervals, {}, False),
    (Process, {}, False),
    (SnapshotsOfProcess, {}, False),
    (TextIds, {}, False),
    (Dashed, {}, False),
    (Plain, {"IS_SNAPSHOTTING_ENABLED": "y"}, False),
    (Plain, {"PLAIN_IS_SNAPSHOTTING_ENABLED": "true", "IS_SNAPSHOTTING_ENABLED": "no"}, False),
    (Snapshots, {"IS_SNAPSHOTTING_ENABLED": "no"}, False),
    (Plain, {"ORIGINATOR_ID_TYPE": "TEXT"}, False),
    (TextIds, {"TEXTIDS_ORIGINATOR_ID_TYPE": "uuid"}, False),
    (Dashed, {"ACME_SCHOOL_ORIGINATOR_ID_TYPE": "text"}, False),
    (Overridden, {}, True),
    (Plain, {"APPLICATION_RECORDER_TOPIC": f"{__name__}:Recorder"}, True),
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'made.db'}"


@pytest.fixture
def made(url: str) -> Iterator[sa.Inspector]:
    engine = sa.create_engine(url)
    yield sa.inspect(engine)
    engine.dispose()


@pytest.mark.parametrize(("cls", "variables", "creates_extra_tables"), CASES)
def test_application_spec_lists_the_tables_that_the_application_creates(
    cls: type[Application[Any]], variables: dict[str, str], *, creates_extra_tables: bool, url: str, made: sa.Inspector
) -> None:
    persistence = {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": url}
    cls(env={**persistence, "SQLALCHEMY_TABLE_PREFIX": "x_", **variables}).close()
    application_spec = application_spec_of(cls, variables)
    specs = application_spec.specs(Placement(None, "x_"), None)
    assert sorted(spec.name.name for spec in specs) == sorted(made.get_table_names())
    assert application_spec.creates_extra_tables == creates_extra_tables
    for spec in specs:
        if spec.kind != "tracking":
            columns = {column["name"]: column["type"] for column in made.get_columns(spec.name.name)}
            is_text = isinstance(columns["originator_id"], sa.Text)
            assert is_text == (spec.originator_id_type == "text")


def test_application_spec_survives_json() -> None:
    application_spec = application_spec_of(SnapshotsOfProcess, {"ORIGINATOR_ID_TYPE": "text"})
    assert ApplicationSpec.from_json(application_spec.to_json()) == application_spec
    assert application_spec.topic == f"{__name__}:SnapshotsOfProcess"


@pytest.mark.parametrize(
    ("variable", "value"), [("ORIGINATOR_ID_TYPE", "integer"), ("IS_SNAPSHOTTING_ENABLED", "perhaps")]
)
def test_bad_value_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable} is '{value}'") as caught:
        application_spec_of(Plain, {variable: value})
    assert caught.value.variable == variable


def test_placement_of_each_application() -> None:
    specs = application_spec_of(Process, {}).specs(Placement("acme_{application}", "{application}_x_"), "public")
    assert [str(spec.name) for spec in specs] == [
        '"acme_process"."process_x_process_tracking"',
        '"acme_process"."process_x_process_events"',
    ]
