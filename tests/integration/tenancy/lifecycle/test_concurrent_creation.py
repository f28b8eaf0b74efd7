"""Many processes and threads that change the same tenants."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tenancy import Tenancy
from tenancy.registry import FLEET_ID
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel
from tests.support import catalog
from tests.support.concurrent_creation_process import change_at_random

DEADLINE = 200.0


def crowd(what: str, url: str, count: int) -> list[Any]:
    """Run a task in concurrent processes, and return the outcomes."""
    program = [sys.executable, "-m", "tests.support.concurrent_creation_process", what, url, str(count)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    assert len(answers) == count, done.stderr
    return answers


@pytest.mark.parametrize(
    ("database", "count"), [("postgres_url", 50), ("sqlite_url", 8)], ids=["postgres-50", "sqlite-8"]
)
def test_one_slug_is_created_by_many_processes(
    request: pytest.FixtureRequest, make_fleet: Callable[[str], MakeFleet], database: str, count: int
) -> None:
    url = request.getfixturevalue(database)
    # There is no registry yet, either.
    answers = Counter(crowd("create", url, count))
    assert answers.pop("TenantExists") == count - 1
    ((only, one),) = answers.items()
    tenants = make_fleet(url)(Kennel)
    assert (only, one) == (str(tenants["acme"].id), 1)
    assert len(tenants.list()) == 1
    assert len([name for name in catalog.tenants(url) if name.endswith("kennel_events")]) == 1
    assert [change.action for change in tenants.history("acme")] == ["create", "activate"]


@pytest.mark.parametrize("what", ["exist_ok", "request_id"])
def test_one_tenant_is_returned_to_many_processes(fleet: MakeFleet, url: str, what: str) -> None:
    answers = set(crowd(what, url, 5))
    tenants = fleet(Kennel)
    assert answers == {str(tenants["acme"].id)}
    assert [change.action for change in tenants.history("acme")] == ["create", "activate"]


def consistent(tenants: Tenancy, url: str) -> None:
    """Fail unless the registry, the histories and the catalog agree."""
    found = tenants.list()
    assert len({tenant.slug for tenant in found}) == len(found)
    placements = {str(tenant.placement) for tenant in found}
    assert len(placements) == len(found)
    names = catalog.tenants(url)
    assert {placement for placement in placements if any(name.startswith(placement) for name in names)} == placements
    assert [name for name in names if not any(name.startswith(placement) for placement in placements)] == []
    for tenant in found:
        history = tenants.history(tenant.slug)
        assert [change.version for change in history] == list(range(1, len(history) + 1))
        assert history[-1].status == tenant.status
        assert tenant.status in ("active", "suspended")
    registry = tenants.fleet.registry
    _, known = registry.changed_since(0)
    for tenant_id in known - {tenant.id for tenant in found} - {FLEET_ID}:
        assert tenants.history(str(tenant_id))[-1].status == "purged"


def test_concurrent_changes_in_threads_and_processes(fleet: MakeFleet, url: str) -> None:
    tenants = fleet(Kennel)
    tenants.init()
    for errors in crowd("change_at_random", url, 4):
        assert errors == []
    consistent(tenants, url)


def test_concurrent_changes_in_threads(fleet: MakeFleet, url: str, no_purge_delay: None) -> None:  # noqa: ARG001 (a fixture)
    tenants = fleet(Kennel)
    tenants.init()
    assert change_at_random(tenants, threads=16, rounds=4) == []
    consistent(tenants, url)
