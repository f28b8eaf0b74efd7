"""Effect, output and exit code of each command, on both databases."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenancy import Tenancy
from tenancy.testing.postgresql import Postgres
from tests.acceptance.commands import Command
from tests.samples.kennels import Kennel

pytestmark = pytest.mark.usefixtures("no_purge_delay")

SLUG = 'ünï-cödé "x"'
SUMMARY = ["slug", "id", "name", "status", "schema", "prefix", "created_at", "metadata"]
DETAILS = [*SUMMARY, "changed_at", "reason", "reads", "adopted", "due_at"]


@pytest.fixture(params=["sqlite", "postgres"])
def tenancy(request: pytest.FixtureRequest) -> Command:
    """The command on an empty database."""
    return Command(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def quick(sqlite_url: str) -> Command:
    """The command on an empty SQLite database, for tests that do not depend on the database."""
    return Command(sqlite_url)


@pytest.fixture
def fleet(quick: Command) -> Iterator[Tenancy]:
    """The fleet of `quick`, as code sees it."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": quick.url}) as tenants:
        yield tenants


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command on an existing fleet, for calls that fail and change nothing."""
    command = Command(f"sqlite:///{tmp_path_factory.mktemp('settled') / 'fleet.db'}")
    command.ok("create", "acme", "globex", "off")
    command.ok("archive", "off")
    return command


# -- a life --


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
    assert "The slug 'www' is reserved. Choose another slug, or take it out of TENANCY_RESERVED_SLUGS." in outcome.err
    assert quick("rename", "acme", "www").code == 2
    assert [each["slug"] for each in quick.ok("list", "--json").json] == ["acme", "globex"]


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


def test_an_operator_without_the_code_can_use_all_tenant_verbs(tenancy: Command) -> None:
    tenancy.ok("init")
    operator = Command(tenancy.url, app=None)
    operator.ok("create", "acme")
    operator.ok("suspend", "acme")
    operator.ok("resume", "acme")
    assert "KENNEL_SQLALCHEMY_URL" in operator.ok("env", "acme", "--json").json
    operator.ok("purge", "acme", "--yes")


def test_without_code_and_registry_the_remedy_is_named(quick: Command) -> None:
    operator = Command(quick.url, app=None)
    assert "tenancy init" in operator("create", "acme").err
    operator.ok("init")
    outcome = operator("create", "acme")
    assert outcome.code == 1
    assert "--app" in outcome.err


# -- shapes of JSON --


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


# -- several tenants, and none --


def test_messages_about_several_tenants_are_right_for_none(quick: Command) -> None:
    failed = quick("create", "a/b", ".", "--json")
    assert [each["code"] for each in failed.error["failures"]] == ["invalid_slug"] * 2
    assert "ready" not in failed.err
    quick.ok("init")
    (tables,) = (each for each in quick.ok("doctor", "--json").json["findings"] if each["name"] == "tables")
    assert tables["what"] == "There are no complete tenants yet."
    assert "tenancy create SLUG" in quick("show", "acme").err
    assert quick.ok("purge", "--due").out == "No tenant is due.\n"


# -- by its id --


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


# -- creating many --


def test_slugs_from_a_file_are_created_even_if_one_fails(tenancy: Command, tmp_path: Path) -> None:
    path = tmp_path / "slugs.txt"
    path.write_text("\ufeff# the first customers\nacme\n\n  globex  \na/b\nacme\n#\nÜnï-cödé x\n", encoding="utf-8")
    outcome = tenancy("create", "--from", str(path))
    assert outcome.code == 7
    assert outcome.err.startswith("error: Not created: 2 of 5 tenants.\n")
    assert "'acme' exists already" in outcome.err
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


# -- removing --


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


# -- adopting --


def test_existing_tables_become_a_tenant(tenancy: Command) -> None:
    place = "SQLALCHEMY_TABLE_PREFIX" if tenancy.url.startswith("sqlite") else "SQLALCHEMY_SCHEMA"
    name = "legacy_"
    with Kennel(
        env={"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": tenancy.url, place: name}
    ) as old:
        old.register("Fido")
    option = "--prefix" if tenancy.url.startswith("sqlite") else "--schema"
    record = tenancy.ok("adopt", "acme", option, name, "--json").json
    assert record["adopted"] is True
    assert record["schema" if option == "--schema" else "prefix"] == name
    purged = tenancy.ok("purge", "acme", "--yes").out
    assert purged.endswith(
        "nothing left.\n" if option == "--prefix" else 'kept (not owned by the tenant): schema "legacy_".\n'
    )


def test_a_full_disk_is_not_a_traceback(quick: Command) -> None:
    quick.ok("create", "acme")
    outcome = quick("purge", "acme", "--yes", "--certificate", "/dev/full")
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert "No space left" in outcome.err
