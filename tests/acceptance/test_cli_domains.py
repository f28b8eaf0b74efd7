"""The commands of ``tenancy domains``."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.acceptance.commands import Command

HOST = "shop.acme.example"
SHAPE = ["host", "tenant_id", "token", "created_at", "verified_at"]


@pytest.fixture
def tenancy(sqlite_url: str) -> Command:
    """The command on a fleet with three tenants."""
    command = Command(sqlite_url, app=None)
    Command(sqlite_url).ok("init")
    command.ok("create", "acme", "globex", 'Ünï-cödé "x"')
    return command


def test_life_of_a_domain(tenancy: Command) -> None:
    added = tenancy.ok("domains", "add", "acme", "Shop.ACME.example:443", "--actor", "crm:1", "--json").json
    assert list(added) == SHAPE
    assert (added["host"], added["verified_at"]) == (HOST, None)
    assert added["token"] in tenancy.ok("domains", "add", "acme", HOST).out
    assert tenancy.ok("domains", "list", "acme", "--json").json == [added]
    tenancy.ok("domains", "add", "globex", HOST)
    assert tenancy.ok("domains", "verify", "acme", HOST).out == f"{HOST} leads to 'acme'.\n"
    listed = tenancy.ok("domains", "list").out.splitlines()[1:]
    assert sorted(tuple(line.split()[:2]) for line in listed) == [(HOST, "acme"), (HOST, "globex")]
    assert tenancy("domains", "verify", "globex", HOST, "--json").error["code"] == "domain_exists"
    removed = tenancy.ok("domains", "remove", "acme", HOST, "--json").json
    assert removed["verified_at"] is not None
    history = tenancy.ok("history", "acme", "--json").json[2:]
    assert [(each["action"], each["remark"]) for each in history] == [
        (action, HOST) for action in ("add_domain", "verify_domain", "remove_domain")
    ]
    assert history[0]["actor"] == "crm:1"


def test_tenants_are_found_by_slug_and_id(tenancy: Command) -> None:
    slug = 'Ünï-cödé "x"'
    tenant_id = tenancy.ok("show", slug, "--json").json["id"]
    added = tenancy.ok("domains", "add", slug, "münchen.example").out
    assert "tenancy domains verify 'ünï-cödé \"x\"' xn--mnchen-3ya.example" in added
    tenancy.ok("domains", "verify", tenant_id, "MÜNCHEN.example.")
    assert "xn--mnchen-3ya.example" in tenancy.ok("domains", "list", tenant_id).out
    assert tenancy.ok("domains", "remove", slug, "xn--mnchen-3ya.example").out.startswith("Removed xn--mnchen-3ya")


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["add", "unknown", HOST], 3, "not_found"),
        (["add", "acme", "https://x.example"], 2, "invalid_domain"),
        (["add", "acme"], 2, "usage"),
        (["add", "acme", HOST, "--actor", "Ann Smith"], 2, "usage"),
        (["list", "unknown"], 3, "not_found"),
        (["verify", "acme", "x.example"], 3, "domain_not_found"),
        (["verify", "globex", HOST, "--token", "wrong"], 5, "domain_not_verified"),
        (["remove", "acme", "x.example"], 3, "domain_not_found"),
        (["add", "acme", "taken.example"], 4, "domain_exists"),
    ],
)
def test_refusals(tenancy: Command, arguments: Sequence[str], code: int, name: str) -> None:
    tenancy.ok("domains", "add", "globex", HOST)
    tenancy.ok("domains", "add", "globex", "taken.example")
    tenancy.ok("domains", "verify", "globex", "taken.example")
    outcome = tenancy("domains", *arguments, "--json")
    assert (outcome.code, outcome.error["code"]) == (code, name)
    assert tenancy.ok("domains", "list", "acme", "--json").json == []
