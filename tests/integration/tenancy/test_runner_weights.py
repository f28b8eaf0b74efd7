"""A tenant's weight in a running runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tenancy import Tenancy
from tenancy.errors import InvalidArgument
from tenancy.model.tenant import Action
from tenancy.operations.doctor import examine
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.fleets import fleet


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def write_metadata(tenants: Tenancy, slug: str, metadata: Mapping[str, Any]) -> None:
    """Write metadata without the checks of an update, as an earlier version did."""
    registry = tenants.fleet.registry
    with registry.locked(slug) as (session, found):
        registry.change(session, found, Action.RENAME, None, metadata=dict(metadata))


def test_change_is_in_force_in_a_running_process(url: str) -> None:
    with fleet(url, ["globex"]) as tenants:
        acme = tenants.create("acme", metadata={"weight": 3, "plan": "pro"})
        with tenants.runner(workers=2) as runner:
            runner.wait("acme", DEADLINE_SECONDS)
            weight_of = runner._assignments.weight_of  # noqa: SLF001 (no other way to see it)
            assert (weight_of(acme.id), weight_of(tenants["globex"].id)) == (3, 1)
            write_metadata(tenants, "acme", {"weight": 0.5})
            wait_until(lambda: weight_of(acme.id) == 0.5, "the new weight is in force")
            write_metadata(tenants, "acme", {"weight": "heavy"})
            wait_until(lambda: weight_of(acme.id) == 1, "a weight that cannot be used counts as 1")
            tenants.suspend("acme")


def test_unusable_weight_is_refused_and_an_existing_one_is_reported(url: str) -> None:
    with fleet(url, ["acme"]) as tenants:
        for metadata in ({"weight": 0}, {"weight": "heavy"}):
            with pytest.raises(InvalidArgument, match="weight"):
                tenants.create("globex", metadata=metadata)
        assert "globex" not in tenants
        assert [each for each in examine(tenants.fleet) if each.name == "limits"] == []
        write_metadata(tenants, "acme", {"weight": "heavy"})
        (finding,) = [each for each in examine(tenants.fleet) if each.name == "limits"]
        assert (finding.level, finding.tenant) == ("warning", "acme")
        assert "heavy" not in finding.what
