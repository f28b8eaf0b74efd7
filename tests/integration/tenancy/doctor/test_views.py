"""Findings and repairs of the doctor in fleets whose projections have views with their own tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.persistence import ApplicationRecorder

from tenancy import Tenancy
from tenancy.errors import NotRegistered, TenancyError
from tenancy.model.tenant import TenantStatus
from tenancy.operations.doctor import Finding, examine, repair
from tests.acceptance.commands import Command
from tests.samples.kennels import Kennel
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.shared_tables import CreatedByMetadata
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.examinations import age


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def fleet(url: str, *applications: type[Application[Any]], view: type[Any] | None = CountersView) -> Tenancy:
    """Return a fleet, with a projection if a view is given."""
    tenants = Tenancy(applications=[TrainingSchool, *applications], env={"SQLALCHEMY_URL": url})
    if view is not None:
        tenants.project(TrainingSchool, DogCounters, view)
    return tenants


def faults(findings: Sequence[Finding]) -> list[str]:
    """Return the findings that are not ok."""
    return [finding.what for finding in findings if finding.level != "ok"]


def tables(tenants: Tenancy, slug: str) -> list[str]:
    """Return a tenant's tables with their views."""
    return [
        str(name) for name in tenants.fleet.inventory.of_tenant(tenants[slug], tenants.application_specs()).of("table")
    ]


def drop(tenants: Tenancy, table: str) -> None:
    """Drop tables without the fleet."""
    with tenants.fleet.shard.datastore.engine.begin() as connection:
        connection.execute(sa.text(f"DROP TABLE {table}"))


def counters_table(tenants: Tenancy, slug: str) -> str:
    """Return the own table of a tenant's view."""
    (found,) = [name for name in tables(tenants, slug) if "_tracking_counters" in name]
    return found


class ExitingView(CountersView):
    """Ends the process when it is constructed."""

    def __init__(self, *_: Any, **__: Any) -> None:
        sys.exit("no licence")


class ExitingKennel(Kennel):
    """Ends the process when it is constructed, by a hook of its own."""

    def construct_recorder(self) -> ApplicationRecorder:
        sys.exit("no licence")


# -- new in the code --


def test_a_new_projection_is_recorded_and_gets_its_tables(url: str) -> None:
    with fleet(url, view=None) as tenants:
        list(tenants.create_many(["acme", "globex"]))
    with fleet(url) as grown:
        assert faults(examine(grown.fleet))
        assert {each.level for each in repair(grown.fleet)} == {"ok"}
        assert faults(examine(grown.fleet)) == []
        assert list(repair(grown.fleet)) == []
        for slug in ("acme", "globex"):
            assert grown.projection(DogCounters, slug).view.get_created_event_counter() == 0


def test_a_new_application_is_recorded_beside_a_projection(url: str) -> None:
    with fleet(url) as tenants:
        tenants.create("acme")
    with fleet(url, Kennel) as grown:
        assert "Recorded: Kennel." in [each.what for each in repair(grown.fleet)]
        assert faults(examine(grown.fleet)) == []
        grown["acme"].get(Kennel).register("Fido")
        assert grown["acme"].get(Kennel).names() == ["Fido"]
    with fleet(url) as shrunk:
        assert list(repair(shrunk.fleet)) == []
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        assert {each.application for each in operator.application_specs()} == {
            "TrainingSchool",
            "DogCounters",
            "Kennel",
        }


# -- tables of views --


def test_a_lost_table_of_a_view_is_recreated_and_unchecked_tables_are_reported(url: str) -> None:
    with fleet(url) as tenants:
        list(tenants.create_many(["acme", "globex"]))
        assert list(repair(tenants.fleet)) == []
        drop(tenants, counters_table(tenants, "acme"))
        findings = examine(tenants.fleet)
        (unjudged,) = [finding for finding in findings if "DogCounters" in finding.what and finding.name == "tables"]
        assert (unjudged.level, unjudged.tenant) == ("ok", None)
        assert "doctor --repair" in unjudged.remedy
        assert [(each.level, each.tenant) for each in repair(tenants.fleet)] == [("ok", "acme")]
        assert tenants.projection(DogCounters, "acme").view.get_created_event_counter() == 0
        assert list(repair(tenants.fleet)) == []


def test_a_fleet_with_known_tables_only_has_no_finding(url: str) -> None:
    with fleet(url, view=None) as tenants:
        tenants.create("acme")
        assert len([finding for finding in examine(tenants.fleet) if finding.name == "tables"]) == 1


def test_a_suspended_tenant_is_repaired_and_a_purging_one_is_not(url: str) -> None:
    with fleet(url) as tenants:
        list(tenants.create_many(["acme", "globex"]))
        tenants.suspend("acme")
        drop(tenants, counters_table(tenants, "acme"))
        assert [each.tenant for each in repair(tenants.fleet)] == ["acme"]


# -- missing or failing code --


def lose_code(tenants: Tenancy) -> None:
    """Record a view topic that this process cannot resolve."""
    kept = [{**each.to_json(), "view": each.view and "nowhere:CountersView"} for each in tenants.application_specs()]
    tenants.fleet.registry.init({"applications": kept})


def test_without_the_code_of_a_view_no_tenant_is_created(url: str) -> None:
    with fleet(url) as tenants:
        tenants.create("there")
        lose_code(tenants)
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        assert operator.create("there", exist_ok=True).status == "active"
        for create in (operator.create, lambda slug: list(operator.create_many([slug, "globex"]))):
            with pytest.raises(NotRegistered) as caught:
                create("acme")
            assert "DogCounters" in caught.value.message
            assert "nowhere:CountersView" in caught.value.message
            assert "--app" in caught.value.remedy
        assert operator.slugs() == ["there"]
    outcome = Command(url, app=None)("create", "acme", "globex")
    assert outcome.code != 0
    assert "--app" in outcome.err


def test_without_the_code_of_a_view_everything_else_is_repaired(url: str) -> None:
    with fleet(url) as tenants:
        list(tenants.create_many(["acme", "begun", "doomed"]))
        lose_code(tenants)
    age(url, "begun", TenantStatus.PROVISIONING)
    age(url, "doomed", TenantStatus.PURGING)
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        repairs = list(repair(operator.fleet))
        assert [(each.level, each.tenant) for each in repairs] == [
            ("failure", None), ("failure", "begun"), ("ok", "doomed"),
        ]  # fmt: skip
        assert all("--app" in str(each) for each in repairs if each.level == "failure")
        assert [tenant.slug for tenant in operator] == ["acme", "begun"]
    report = Command(url, app=None)("doctor", "--repair", "--json")
    assert report.code == 1
    assert [each["tenant"] for each in report.json["repairs"]] == [None, "begun"]
    with fleet(url) as tenants:
        tenants.init()
        list(repair(tenants.fleet))
        assert faults(examine(tenants.fleet)) == []


def test_code_that_fails_for_one_tenant_does_not_block_other_repairs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet(url) as tenants:
        list(tenants.create_many(["acme", "globex"]))
        lost = [counters_table(tenants, slug) for slug in ("acme", "globex")]
        for table in lost:
            drop(tenants, table)
        make = CountersView.create_table

        def fail_for_acme(view: CountersView) -> None:
            if "acme" in str(view.tables):
                msg = "the moon is full\nand more"
                raise ValueError(msg)
            make(view)

        monkeypatch.setattr(CountersView, "create_table", fail_for_acme)
        acme, globex = repair(tenants.fleet)
        assert (acme.level, acme.tenant) == ("failure", "acme")
        assert "'DogCounters' could not be constructed" in acme.what
        assert "ValueError: the moon is full. Fix the error, then run: tenancy doctor --repair" in acme.what
        assert (globex.level, globex.tenant) == ("ok", "globex")
        with pytest.raises(TenancyError, match=r"the moon is full.*doctor --repair") as caught:
            tenants.create("acme-2")
        assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(("view", "application"), [(ExitingView, "DogCounters"), (None, "ExitingKennel")])
def test_code_that_exits_is_a_failure_of_the_tenant(url: str, view: type[Any] | None, application: str) -> None:
    """A module may exit for a missing setting: neither the command nor the service ends with it."""
    with fleet(url, view=None) as tenants:
        list(tenants.create_many(["acme", "globex"]))
    with fleet(url, *(() if view else (ExitingKennel,)), view=view) as grown:
        with pytest.raises(TenancyError) as caught:
            grown.create("initech")
        what = f"{application!r} could not be constructed, which creates its tables: SystemExit: no licence."
        assert caught.value.message == what
        assert "doctor --repair" in caught.value.remedy
        failed = [each for each in repair(grown.fleet) if each.level == "failure"]
        assert [each.tenant for each in failed] == ["acme", "globex", "initech"]
        assert all(what in each.what for each in failed)


def test_a_view_with_a_shared_table_is_a_failure_of_each_tenant(url: str) -> None:
    with fleet(url, view=None) as tenants:
        list(tenants.create_many(["acme", "globex"]))
    with fleet(url, view=CreatedByMetadata) as tenants:
        recorded, *repairs = repair(tenants.fleet)
        assert recorded.level == "ok"
        assert [(each.level, each.tenant) for each in repairs] == [("failure", "acme"), ("failure", "globex")]
        assert all("own_table" in each.what for each in repairs)
