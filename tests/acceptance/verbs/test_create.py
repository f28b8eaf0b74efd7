"""Creation of many tenants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tenancy import Tenancy
from tests.acceptance.commands import Command

pytestmark = pytest.mark.usefixtures("no_purge_delay")


def test_slugs_from_a_file_are_created_even_if_one_fails(tenancy: Command, tmp_path: Path) -> None:
    path = tmp_path / "slugs.txt"
    path.write_text("\ufeff# the first customers\nacme\n\n  globex  \na/b\nacme\n#\nÜnï-cödé x\n", encoding="utf-8")
    outcome = tenancy("create", "--from", str(path))
    assert outcome.code == 7
    assert outcome.err.startswith("error: Not created: 2 of 5 tenants.\n")
    assert "'acme' already exists" in outcome.err
    assert [each["slug"] for each in tenancy.ok("list", "--json").json] == ["acme", "globex", "ünï-cödé x"]
    again = tenancy("create", "first", "--from", "-", "--exist-ok", "--json", typed="acme\nglobex\n")
    assert [each["slug"] for each in again.json] == ["first", "acme", "globex"]


def test_long_lists_are_counted(quick: Command) -> None:
    assert quick.ok("create", *map(str, range(21))).out == "Created 21 tenants.\n"


def test_a_binary_file_is_a_usage_error(quick: Command, tmp_path: Path) -> None:
    path = tmp_path / "slugs.bin"
    path.write_bytes(b"acme\n\xff\xfe")
    outcome = quick("create", "--from", str(path))
    assert (outcome.code, "UTF-8" in outcome.err) == (2, True)


def test_an_error_of_the_fleet_ends_the_run_and_reports_progress(
    quick: Command, fleet: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eventsourcing.persistence import OperationalError  # noqa: PLC0415 (beside its use)

    def create_many(*_arguments: object, **_options: object) -> Iterator[object]:
        yield fleet.create("acme")
        msg = "the server went away"
        raise OperationalError(msg)

    monkeypatch.setattr(Tenancy, "create_many", create_many)
    outcome = quick("create", "acme", "globex", "third")
    assert outcome.code == 7
    assert "Not created: 2 of 3" in outcome.err
    assert "the server went away" in outcome.err


def test_a_retry_with_the_same_request_returns_the_same_tenant(quick: Command) -> None:
    first = quick.ok("create", "acme", "--request-id", "r1", "--json").json
    assert quick.ok("create", "acme", "--request-id", "r1", "--json").json == first
    assert quick("create", "acme", "--request-id", "r2").code == 4
    assert quick.ok("create", "acme", "--request-id", "r1").out.startswith("Ready: 'acme' in ")
    assert quick.ok("create", "globex").out.startswith("Created 'globex' in ")
    quick.ok("suspend", "acme", "--reads")
    outcome = quick("create", "acme", "--request-id", "r1")
    assert outcome.code == 5
    assert "tenancy resume acme" in outcome.err
