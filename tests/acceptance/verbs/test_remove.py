"""Deletion, purges and certificates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.commands import Command

pytestmark = pytest.mark.usefixtures("no_purge_delay")


def test_dry_run_shows_and_changes_nothing(tenancy: Command) -> None:
    tenancy.ok("create", "acme")
    assert tenancy.ok("delete", "acme", "--dry-run").out == (
        "Would delete 'acme'. Its grace period would be 30 days.\n"
    )
    assert "2 tables" in tenancy.ok("purge", "acme", "--dry-run").out
    assert tenancy.ok("show", "acme", "--json").json["status"] == "active"


def test_all_due_tenants_are_purged(quick: Command) -> None:
    patient, hasty = quick, Command(quick.url, variables={"TENANCY_GRACE_DAYS": "0"})
    quick.ok("create", "a", "b", "c", "d")
    patient.ok("delete", "a", "--yes")
    hasty.ok("delete", "b", "--yes")
    hasty.ok("delete", "c", "--yes")
    assert "due" in quick.ok("doctor").out
    assert [each["slug"] for each in quick.ok("purge", "--due", "--dry-run", "--json").json] == ["b", "c"]
    assert [each["slug"] for each in quick.ok("purge", "--due", "--yes", "--json").json] == ["b", "c"]
    assert quick.ok("purge", "--due", "--yes").out == "No tenant is due.\n"
    assert [each["slug"] for each in quick.ok("list", "--json").json] == ["a", "d"]


def test_certificates_go_to_the_standard_output(
    quick: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick.ok("create", "acme", "globex")
    before = sorted(tmp_path.iterdir())
    done = quick.ok("purge", "acme", "globex", "--yes", "--certificate", "-")
    assert [json.loads(line)["slug"] for line in done.out.splitlines()] == ["acme", "globex"]
    assert done.err.count("nothing left") == 2
    twice = quick("purge", "--due", "--certificate", "-", "--json")
    assert (twice.code, "both write to standard output" in twice.err) == (2, True)
    nothing = quick.ok("purge", "--due", "--certificate", "-")
    assert (nothing.out, nothing.err) == ("", "No tenant is due.\n")
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in before} == set()


def test_a_full_disk_is_not_a_traceback(quick: Command) -> None:
    quick.ok("create", "acme")
    outcome = quick("purge", "acme", "--yes", "--certificate", "/dev/full")
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert "No space left" in outcome.err
