"""A follower whose tables are still to be created waits, and goes on when a migration has created them."""

from __future__ import annotations

import pytest

from tenancy import Tenancy
from tenancy.errors import NotCaughtUp
from tests.samples.published_school import Counts, CountsView, Library, School
from tests.support.deadlines import wait_until


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def states(tenants: Tenancy) -> dict[str, str]:
    return {each.tenant: each.state for each in tenants.followers.status()}


def test_follower_waits_until_its_tables_are_created(url: str) -> None:
    """Seen to fail without the check: the follower fails instead, as one whose table was dropped."""
    with Tenancy(applications=[School], env={"SQLALCHEMY_URL": url}) as before:
        for slug in ("acme", "globex"):
            for _ in range(3):
                before.create(slug, exist_ok=True).get(School).enrol()
    with Tenancy(applications=[School, Library], env={"SQLALCHEMY_URL": url}) as tenants:
        tenants.project(School, Counts, CountsView)
        tenants.create("new").get(School).enrol()
        with tenants.runner(max_attempts=1) as runner:
            runner.wait("new")
            with pytest.raises(NotCaughtUp, match=r"waits for its tables: counts_tracking.* tenancy migrate"):
                runner.wait("acme")
            tenants["acme"].get(School).enrol()
            assert states(tenants) == {"acme": "waiting", "globex": "waiting", "new": "current"}
            assert all(each.failure is None for each in tenants.followers.status())

            assert tenants.migrate().counts.done == 2
            # Without another event and without a restart.
            wait_until(lambda: set(states(tenants).values()) == {"current"}, "all followers have caught up")
            runner.wait("acme")
        assert tenants.projection(Counts, "acme").view.total() == 4
        assert tenants.projection(Counts, "globex").view.total() == 3
