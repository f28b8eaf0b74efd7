"""Variables passed as `Tenancy(env=...)` apply to all applications and views of a tenant."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.application import Application
from eventsourcing.cipher import AESCipher
from eventsourcing.system import SingleThreadedRunner
from eventsourcing.utils import get_topic

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tenancy import Tenancy
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import SYSTEM, Kennel, Visits
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.conflicting_environment import variables


class Recorder(SQLAlchemyApplicationRecorder):
    """A recorder that only a variable selects."""


class View(CountersView):
    """Reports the autoflush setting of its sessions."""

    def autoflush(self) -> bool:
        with self.transaction(commit=False) as session:
            return session.autoflush


GIVEN = {
    "CIPHER_TOPIC": "eventsourcing.cipher:AESCipher",
    "CIPHER_KEY": AESCipher.create_key(16),
    "COMPRESSOR_TOPIC": "zlib",
    "AGGREGATE_CACHE_MAXSIZE": "10",
    "SQLALCHEMY_AUTOFLUSH": "no",
    "KENNEL_APPLICATION_RECORDER_TOPIC": get_topic(Recorder),
    "KENNEL_COLOUR": "red",
    "COLOUR": "blue",
    "EMPTY": "",
}


def found(application: Application[Any]) -> dict[str, Any]:
    """Return an application's settings that come from the variables."""
    with application.recorder.transaction(commit=False) as session:  # type: ignore[attr-defined]
        return {
            "cipher": type(application.mapper.cipher),
            "is_compressed": application.mapper.compressor is not None,
            "is_cached": application.repository.cache is not None,
            "autoflush": session.autoflush,
            "recorder": type(application.recorder),
            "colour": application.env.get("COLOUR"),
            "empty": application.env.get("EMPTY"),
        }


OF_KENNEL = {
    "cipher": AESCipher,
    "is_compressed": True,
    "is_cached": True,
    "autoflush": False,
    "recorder": Recorder,
    "colour": "red",
    "empty": "",
}


def test_they_apply_to_applications(fleet: MakeFleet) -> None:
    acme = fleet(**GIVEN).create("acme")
    kennel = acme.get(Kennel)
    kennel.take_snapshot(kennel.register("Fido"))
    assert found(kennel) == OF_KENNEL
    assert found(acme.get(Visits))["colour"] == "blue"
    with Kennel(env=acme.env()) as own, SingleThreadedRunner[UUID](SYSTEM, env=acme.env()) as runner:
        assert found(own) == found(runner.get(Kennel)) == OF_KENNEL
        assert own.names() == ["Fido"]
    (stored,) = kennel.recorder.select_notifications(start=None, limit=10)
    assert b"Fido" not in stored.state


def test_they_apply_to_views(fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's variables apply too, as in the library's runners."""
    tenants = fleet(TrainingSchool, DOGCOUNTERS_SQLALCHEMY_AUTOFLUSH="no")
    tenants.project(TrainingSchool, DogCounters, View)
    tenants.create("acme")
    assert tenants.projection(DogCounters, "acme").view.autoflush() is False
    monkeypatch.setenv("SQLALCHEMY_AUTOFLUSH", "no")
    other = fleet(TrainingSchool)
    other.project(TrainingSchool, DogCounters, View)
    assert other.projection(DogCounters, "acme").view.autoflush() is False


def test_they_apply_in_another_process(fleet: MakeFleet) -> None:
    acme = fleet(**GIVEN).create("acme")
    acme.get(Kennel).register("Fido")
    program = "from tests.samples.kennels import Kennel; k = Kennel(); print(k.names(), type(k.mapper.cipher).__name__)"
    env = {**os.environ, **acme.env()}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "['Fido'] AESCipher\n", done.stderr


def test_applications_of_this_process_parse_no_placement(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do views, nor what the library constructs for a leader, nor the construction that creates extra tables."""

    def parse(*_: object) -> None:
        pytest.fail("variables were parsed")

    with Tenancy(applications=[TrainingSchool], system=SYSTEM, env={"SQLALCHEMY_URL": url}) as tenants:
        tenants.project(TrainingSchool, DogCounters, View)
        tenants.init()
        monkeypatch.setattr("eventsourcing_sqlalchemy.settings.SettingsReader.location", parse)
        monkeypatch.setattr("tenancy.settings.TenancySettings.read", parse)
        acme = tenants.create("acme")
        acme.get(Kennel).register("Fido")
        acme.get(TrainingSchool).register("Rex")
        tenants.projection(DogCounters, acme)
        with tenants.runner() as runner:
            runner.wait("acme")
        assert acme.get(Visits).recorder.max_tracking_id("Kennel") == 1


def test_a_placement_takes_precedence(fleet: MakeFleet, url: str) -> None:
    acme = fleet().create("acme")
    acme.get(Kennel).register("Fido")
    # These variables describe the fleet itself if the code passes them.
    of_fleet = (
        "SQLALCHEMY_URL",
        "SQLALCHEMY_CONNECTION_CREATOR_TOPIC",
        "ORIGINATOR_ID_TYPE",
        "IS_SNAPSHOTTING_ENABLED",
    )
    hostile = {key: value for key, value in variables("sqlite:////nowhere/x.db").items() if key not in of_fleet}
    given = {**hostile, **{f"KENNEL_{key}": value for key, value in hostile.items()}, "SQLALCHEMY_URL": url}
    with Tenancy(applications=[Kennel, Visits], env=given) as tenants:
        assert tenants["acme"].get(Kennel).names() == ["Fido"]
