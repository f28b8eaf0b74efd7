"""Lifecycle verbs, and messages about none or several tenants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.commands import Command

pytestmark = pytest.mark.usefixtures("no_purge_delay")

SLUG = 'ünï-cödé "x"'


def test_the_life_of_a_tenant(tenancy: Command, tmp_path: Path) -> None:
    assert "Kennel" in tenancy.ok("init").out
    assert tenancy.ok("create", "acme", "globex").out.startswith("Created 'acme' in acme_")
    assert [each["slug"] for each in tenancy.ok("list", "--json").json] == ["acme", "globex"]
    assert tenancy.ok("suspend", "acme", "--reason", "invoice", "--reads").out == (
        "'acme' is suspended; reads are allowed.\n"
    )
    assert tenancy.ok("resume", "acme").out == "'acme' is active.\n"
    assert tenancy.ok("archive", "acme").out == "'acme' is archived.\n"
    assert tenancy.ok("restore", "acme").out == "'acme' is active.\n"
    assert tenancy.ok("rename", "acme", "apex").out == "Renamed 'acme' to 'apex'.\n"
    assert tenancy.ok("rename", "apex", "--name", "Apex").out == "Changed the name of 'apex' to 'Apex'.\n"
    assert tenancy.ok("delete", "apex", "--yes").out == "'apex' is deleted.\n"
    assert tenancy.ok("undelete", "apex").out == "'apex' is active.\n"
    changes = tenancy.ok("history", "apex", "--json").json
    assert [each["action"] for each in changes] == [
        "create", "activate", "suspend", "resume", "archive", "restore", "rename", "rename", "delete", "undelete",
    ]  # fmt: skip
    assert list(changes[0]) == ["version", "action", "status", "actor", "at", "remark"]
    proof = tmp_path / "purged.jsonl"
    said = tenancy.ok("purge", "apex", "globex", "--yes", "--certificate", str(proof)).out
    assert "nothing left" in said
    assert [json.loads(line)["slug"] for line in proof.read_text().splitlines()] == ["apex", "globex"]
    assert tenancy.ok("list", "--json").json == []
    assert tenancy("show", "apex").code == 3
    gone = json.loads(proof.read_text().splitlines()[0])
    assert set(gone["left"].values()) == {0}
    assert f"Purged 'apex' ({gone['tenant_id']}): " in said
    assert tenancy.ok("history", gone["tenant_id"], "--json").json[-1]["status"] == "purged"


def test_omitted_values_stay_unchanged(quick: Command) -> None:
    quick.ok("create", "acme")

    def done(*arguments: str) -> tuple[str | None, bool]:
        record = quick.ok(arguments[0], "acme", *arguments[1:], "--json").json
        return record["reason"], record["reads"]

    assert done("suspend", "--reason", "invoice 4711", "--reads") == ("invoice 4711", True)
    assert done("suspend") == ("invoice 4711", True)
    assert done("suspend", "--reason", "invoice 4712") == ("invoice 4712", True)
    assert done("suspend", "--no-reads") == ("invoice 4712", False)
    assert done("archive", "--reason", "A") == ("A", False)
    assert done("archive", "--reason", "B") == ("B", False)


def test_a_reserved_slug_is_refused_and_the_others_are_created(quick: Command) -> None:
    outcome = quick("create", "acme", "www", "globex")
    assert outcome.code == 7
    assert "The slug 'www' is reserved. Choose another slug, or remove it from TENANCY_RESERVED_SLUGS." in outcome.err
    assert quick("rename", "acme", "www").code == 2
    assert [each["slug"] for each in quick.ok("list", "--json").json] == ["acme", "globex"]


def test_an_operator_without_the_code_can_use_all_tenant_verbs(tenancy: Command) -> None:
    tenancy.ok("init")
    operator = Command(tenancy.url, app=None)
    operator.ok("create", "acme")
    operator.ok("suspend", "acme")
    operator.ok("resume", "acme")
    assert "KENNEL_SQLALCHEMY_URL" in operator.ok("env", "acme", "--json").json
    operator.ok("purge", "acme", "--yes")


def test_messages_about_several_tenants_are_right_for_none(quick: Command) -> None:
    failed = quick("create", "a/b", ".", "--json")
    assert [each["code"] for each in failed.error["failures"]] == ["invalid_slug"] * 2
    assert "ready" not in failed.err
    quick.ok("init")
    (tables,) = (each for each in quick.ok("doctor", "--json").json["findings"] if each["name"] == "tables")
    assert tables["what"] == "There are no complete tenants yet."
    assert "tenancy create SLUG" in quick("show", "acme").err
    assert quick.ok("purge", "--due").out == "No tenant is due.\n"
