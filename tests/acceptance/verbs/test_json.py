"""Shapes of JSON."""

from __future__ import annotations

import uuid

import pytest

from tests.acceptance.commands import Command

pytestmark = pytest.mark.usefixtures("no_purge_delay")

SUMMARY = ["slug", "id", "name", "status", "schema", "prefix", "created_at", "metadata"]
DETAILS = [*SUMMARY, "changed_at", "reason", "reads", "adopted", "due_at"]


def test_every_verb_returns_the_documented_shape(quick: Command) -> None:
    ready = quick.ok("init", "--json").json
    assert list(ready) == ["registry", "applications"]
    (made,) = quick.ok("create", "acme", "--metadata", '{"plan": "gold"}', "--json").json
    assert list(made) == SUMMARY
    (listed,) = quick.ok("list", "--json").json
    assert listed == made
    assert uuid.UUID(made["id"])
    for arguments in (
        ("show", "acme"),
        ("suspend", "acme"),
        ("resume", "acme"),
        ("archive", "acme"),
        ("restore", "acme"),
        ("rename", "acme", "--name", "Acme"),
        ("delete", "acme", "--dry-run"),
        ("delete", "acme", "--yes"),
        ("undelete", "acme"),
    ):
        record = quick.ok(*arguments, "--json").json
        assert list(record) == [*DETAILS, *(["hooks"] if arguments[0] == "show" else [])], arguments
        assert record["metadata"] == {"plan": "gold"}
    (foretold,) = quick.ok("purge", "acme", "--dry-run", "--json").json
    assert foretold["would_remove"]["tables"] == 2
    assert quick("create", "bad/slug", "--json").error["tenant"] == "bad/slug"
    (proof,) = quick.ok("purge", "acme", "--yes", "--json").json
    assert list(proof) == ["tenant_id", "slug", "slug_hash", "created_at", "purged_at", "removed", "left", "others"]
    report = quick.ok("doctor", "--json").json
    assert list(report) == ["findings", "repairs"]
    assert {*map(tuple, report["findings"])} == {("name", "level", "what", "remedy", "tenant")}
