"""Ids in place of slugs."""

from __future__ import annotations

import pytest

from tests.acceptance.commands import Command

pytestmark = pytest.mark.usefixtures("no_purge_delay")


def test_an_id_is_accepted_wherever_a_slug_is(quick: Command) -> None:
    tenant_id = quick.ok("create", "acme", "--json").json[0]["id"]
    other_id = quick.ok("create", "globex", "--json").json[0]["id"]
    assert quick.ok("show", tenant_id, "--json").json["slug"] == "acme"
    assert quick.ok("suspend", tenant_id).out == "'acme' is suspended.\n"
    assert quick.ok("resume", tenant_id.upper()).out == "'acme' is active.\n"
    assert quick.ok("archive", tenant_id).out == "'acme' is archived.\n"
    assert quick.ok("restore", tenant_id).out == "'acme' is active.\n"
    assert quick.ok("rename", tenant_id, "apex").out == "Renamed 'acme' to 'apex'.\n"
    assert quick.ok("env", tenant_id).out == quick.ok("env", "apex").out
    assert quick.process("exec", tenant_id, "--", "true").code == 0
    assert quick.ok("runner", "status", tenant_id, "--json").json == []
    assert quick.ok("runner", "retry", tenant_id).out == "No follower of 'apex' is failing.\n"
    assert quick.ok("delete", tenant_id, "--yes").out == "'apex' is deleted.\n"
    assert quick.ok("undelete", tenant_id).out == "'apex' is active.\n"
    # The slug of one tenant is the id of another.
    quick.ok("rename", "globex", tenant_id)
    for verb in ("show", "suspend", "purge"):
        refused = quick(verb, tenant_id, *(["--yes"] if verb == "purge" else []))
        assert (refused.code, "the slug of one tenant and the id of another" in refused.err) == (2, True)
    quick.ok("rename", other_id, "globex")
    assert "Purged 'apex'" in quick.ok("purge", tenant_id, "apex", "--yes").out
    assert (
        quick(  # of a purged tenant, only the history remains
            "show", tenant_id
        ).code
        == 3
    )
    assert [each["slug"] for each in quick.ok("list", "--json").json] == ["globex"]
