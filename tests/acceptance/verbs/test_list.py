"""Lists of tenants."""

from __future__ import annotations

import pytest

from tests.acceptance.commands import Command

pytestmark = pytest.mark.usefixtures("no_purge_delay")

SLUG = 'ünï-cödé "x"'


def test_tenants_are_listed_by_conditions_and_pages(tenancy: Command) -> None:
    tenancy.ok("create", "b", "a", "--metadata", '{"plan": "free", "seats": 5}')
    tenancy.ok("create", SLUG, "--metadata", '{"plan": "gold"}')

    def slugs(*arguments: str) -> list[str]:
        return [each["slug"] for each in tenancy.ok("list", "--json", *arguments).json]

    assert slugs() == ["a", "b", SLUG]
    assert slugs("--where", "plan=free", "--where", "seats=5", "--order=-slug") == ["b", "a"]
    assert slugs("--order", "created") == ["b", "a", SLUG] or slugs("--order", "created") == ["a", "b", SLUG]
    assert slugs("--limit", "1", "--after", "A") == ["b"]
    tenant = tenancy.ok("show", SLUG, "--json").json
    assert slugs("--order", "-created", "--limit", "5", "--after", tenant["id"], "--where", "plan=gold") == []
    assert slugs("--created-after", tenant["created_at"]) == []
    assert slugs("--created-after", "2026-01-01", "--status", "active", "--where", "plan=gold") == [SLUG]
    assert tenancy.ok("list", "--json", "--where", "plan=gold").json[0]["metadata"] == {"plan": "gold"}
    assert tenancy.ok("list", "--where", "plan=none").out.split() == ["slug", "status", "where", "created", "name"]
