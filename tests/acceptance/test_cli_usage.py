"""The command that shows usage."""

from __future__ import annotations

import pytest

from tenancy import Tenancy
from tests.acceptance.commands import Command
from tests.samples.kennels import Kennel

KEYS = ["tenant", "tenant_id", "events", "bytes", "first_active_at", "last_active_at", "rate"]


@pytest.fixture(params=["sqlite", "postgres"])
def tenancy(request: pytest.FixtureRequest) -> Command:
    """The command on a fleet of three tenants, one of which has recorded events."""
    url = request.getfixturevalue(f"{request.param}_url")
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as tenants:
        for slug in ("acme", 'Ünï-cödé "x"', "umbra"):
            tenants.create(slug, metadata={"plan": "free" if slug == "umbra" else "pro"})
        for _ in range(3):
            tenants["acme"].get(Kennel).register("Fido")
    return Command(url, app=None)  # the registry has recorded the tables


def test_all_tenants(tenancy: Command) -> None:
    lines = tenancy.ok("usage").out.splitlines()
    assert lines[0].split("   ")[0] == "slug"
    assert [line.split()[0] for line in lines[1:]] == ["acme", "umbra", "ünï-cödé"]
    assert lines[1].split()[1] == "3"
    found = tenancy.ok("usage", "--json").json
    assert [list(each) for each in found] == [KEYS] * 3
    assert [(each["tenant"], each["events"]) for each in found] == [("acme", 3), ("umbra", 0), ('ünï-cödé "x"', 0)]
    assert found[0]["bytes"] > 0
    assert found[0]["first_active_at"].endswith("+00:00")
    assert (found[1]["last_active_at"], found[1]["rate"]) == (None, None)


def test_some_tenants(tenancy: Command) -> None:
    def slugs(*arguments: str) -> list[str]:
        return [each["tenant"] for each in tenancy.ok("usage", *arguments, "--json").json]

    assert slugs("umbra", "acme") == ["acme", "umbra"]
    assert slugs("--where", "plan=free") == ["umbra"]
    assert slugs("--status", "active", "--except", "acme", "--limit", "1") == ["umbra"]
    assert slugs("--where", "plan=none") == []


def test_errors(tenancy: Command) -> None:
    assert tenancy("usage", "acmee").code == 3
    assert "Did you mean 'acme'?" in tenancy("usage", "acmee").err
    assert tenancy("usage", "--where", "plan").code == 2
    assert tenancy("usage", "--status", "purging", "--json").error["code"] == "invalid_argument"
