"""Exit codes and remedies of failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenancy.testing.postgresql import Postgres
from tests.acceptance.commands import Command

pytestmark = pytest.mark.usefixtures("no_purge_delay")


def test_without_code_and_registry_the_remedy_is_named(quick: Command) -> None:
    operator = Command(quick.url, app=None)
    assert "tenancy init" in operator("create", "acme").err
    operator.ok("init")
    outcome = operator("create", "acme")
    assert outcome.code == 1
    assert "--app" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["show", "unknown"], 3, "not_found"),
        (["create", "acme"], 4, "exists"),
        (["create", "off"], 4, "exists"),
        (["create", "off", "--exist-ok"], 5, "archived"),
        (["create", "off", "acme", "--exist-ok"], 7, "partly_done"),
        (["rename", "globex", "acme"], 4, "exists"),
        (["exec", "off", "--", "true"], 5, "archived"),
        (["suspend", "off"], 5, "refused"),
        (["create", "a/b", "acme"], 1, "failed"),
        (["create", "a/b"], 2, "invalid_slug"),
        (["create", "a/b", "."], 1, "failed"),
        (["create"], 2, "usage"),
        (["create", "x", "--metadata", "[1]"], 2, "usage"),
        (["create", "x", "--metadata", "{"], 2, "usage"),
        (["create", "x", "--metadata", '{"a": NaN}'], 2, "usage"),
        (["create", "x", "--metadata", '{"a": [1e999]}'], 2, "usage"),
        (["create", "x", "--metadata", '{"a": "\\u0000"}'], 2, "usage"),
        (["create", "x", "--metadata", '{"a": "\\ud800"}'], 2, "usage"),
        (["adopt", "x", "--metadata", '{"a": -Infinity}'], 2, "usage"),
        (["create", "x", "--metadata", "[" * 100_000], 2, "usage"),
        (["adopt", "x", "--prefix", "\udcff"], 1, "failed"),
        (["create", "x", "y", "--name", "Z"], 2, "usage"),
        (["create", "x", "--actor", "Jane Doe"], 2, "usage"),
        (["create", "x", "--actor", "jane@example.com"], 2, "usage"),
        (["create", "--from", "/nowhere"], 2, "usage"),
        (["list", "--status", "happy"], 2, "usage"),
        (["list", "--order", "name"], 2, "usage"),
        (["list", "--created-after", "yesterday"], 2, "usage"),
        (["list", "--where", "plan"], 2, "usage"),
        (["list", "--order", "created", "--after", "acme"], 2, "invalid_argument"),
        (["list", "--wrong"], 2, "usage"),
        (["wrong"], 2, "usage"),
        (["rename", "acme"], 2, "usage"),
        (["purge"], 2, "usage"),
        (["purge", "acme", "--due"], 2, "usage"),
        (["purge", "acme"], 2, "usage"),
        (["purge", "acme", "--yes", "--certificate", "/nowhere/file"], 2, "usage"),
        (["purge", "unknown", "--yes"], 3, "not_found"),
        (["delete", "acme"], 2, "usage"),
        (["env", "acme", "--format", "xml"], 2, "usage"),
        (["exec", "acme", "--", "/nowhere/program"], 126, "not_executable"),
        (["adopt", "new", "--prefix", "nothing_"], 1, "failed"),
        (["--app", "kennel", "list"], 2, "usage"),
        (["--url", "sqlite://", "list"], 2, "settings"),
        (["--url", "nonsense", "list"], 2, "settings"),
        (["--url", "postgresql://postgres@127.0.0.1:1/x", "list"], 6, "unreachable"),
    ],
)  # fmt: skip
def test_every_failure_has_its_exit_code_and_remedy(
    settled: Command, arguments: list[str], code: int, name: str
) -> None:
    place = 2 if arguments[0].startswith("--") else 0
    as_json = settled(*arguments[: place + 1], "--json", *arguments[place + 1 :])
    assert (as_json.code, as_json.error["code"]) == (code, name), as_json
    assert list(as_json.error)[:4] == ["code", "message", "remedy", "tenant"]
    plain = settled(*arguments)
    assert plain.code == code
    assert plain.err.startswith("error: ")
    assert "Traceback" not in plain.err
    assert as_json.error["message"] in plain.err


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("sqlite:///junk.db", "to an SQLite file"),
        ("sqlite:///nowhere/fleet.db", "Create the directory"),
        ("sqlite:////", "allow this user to write to it"),
    ],
)
@pytest.mark.parametrize("verb", ["list", "init", "create acme", "doctor"])
def test_an_unusable_file_is_refused_with_the_cause(
    url: str, remedy: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("junk.db").write_text("This is no database.\n" * 100)
    outcome = Command(url)(*verb.split())
    assert outcome.code == 6
    if verb != "doctor":
        assert remedy in outcome.err
        assert "server" not in outcome.err


def test_a_read_only_file_is_refused_with_the_cause(quick: Command) -> None:
    quick.ok("create", "acme")
    read_only = Command(quick.url.replace("///", "///file:") + "?mode=ro&uri=true")
    read_only.ok("list")
    for verb in ("create globex", "suspend acme"):
        outcome = read_only(*verb.split())
        assert outcome.code == 6
        assert "Allow this user to write to the file" in outcome.err
        assert "server" not in outcome.err


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_a_missing_database_can_be_created(postgres_server: Postgres, driver: str) -> None:
    nowhere = Command(postgres_server.url("nowhere", driver))
    for verb in ("list", "create acme", "init"):
        outcome = nowhere(*verb.split())
        assert outcome.code == 6
        assert outcome.err.endswith("createdb nowhere\n")
    assert nowhere("doctor").code == 6


def test_failures_have_changed_nothing(settled: Command) -> None:
    statuses = {each["slug"]: each["status"] for each in settled.ok("list", "--json").json}
    assert statuses == {"acme": "active", "globex": "active", "off": "archived"}
