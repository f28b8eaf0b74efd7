"""Applications that only the code or only the registry has."""

from __future__ import annotations

import pytest

from tenancy import Tenancy
from tenancy.operations.doctor import examine, repair
from tests.samples.kennels import Kennel, Reports
from tests.support.examinations import about, fleet, levels


@pytest.mark.usefixtures("tenants")
def test_a_new_application_of_the_code_is_recorded_and_gets_its_tables(url: str) -> None:
    with fleet(url, Kennel, Reports) as grown:
        findings = examine(grown.fleet)
        assert {finding.tenant for finding in about(findings, "tables")} == {"acme", "globex"}
        assert "not recorded" in about(findings, "applications")[0].what
        assert {each.level for each in repair(grown.fleet)} == {"ok"}
        assert levels(examine(grown.fleet)) == {}
        grown["acme"].get(Reports).register("Fido")


@pytest.mark.usefixtures("tenants")
def test_an_application_removed_from_the_code_stays_recorded(url: str) -> None:
    with fleet(url, Reports) as shrunk:
        assert levels(examine(shrunk.fleet)) == {
            "applications": "failure",
            "migrations": "warning",
            "tables": "failure",
        }
        list(repair(shrunk.fleet))
        assert levels(examine(shrunk.fleet))["applications"] == "failure"
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        assert [each.application for each in operator.application_specs()] == ["Kennel"]


@pytest.mark.usefixtures("tenants")
def test_code_that_both_adds_and_lacks_an_application_is_not_recorded(url: str) -> None:
    """Recording it would forget the application that the code lacks."""
    with fleet(url, Reports) as other:
        (finding,) = about(list(repair(other.fleet)), "applications")
        assert (finding.level, finding.tenant) == ("failure", None)
        assert finding.what == "Not recorded: Reports. The code lacks Kennel."
        assert finding.remedy == "If these were removed permanently, run: tenancy init"
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        assert [each.application for each in operator.application_specs()] == ["Kennel"]
    with fleet(url, Reports) as other:
        other.init()
        assert about(list(repair(other.fleet)), "applications") == []
