"""The command `tenancy update`."""

from __future__ import annotations

import pytest

from tests.acceptance.commands import Command

SLUG = 'ünï-cödé "x"'


@pytest.fixture(params=["sqlite", "postgres"])
def tenancy(request: pytest.FixtureRequest) -> Command:
    """The command on an empty database."""
    return Command(request.getfixturevalue(f"{request.param}_url"))


def test_keys_are_set_and_unset(tenancy: Command) -> None:
    tenancy.ok("create", SLUG, "--metadata", '{"plan": "free", "trial": true}')
    said = tenancy.ok("update", SLUG, "--set", "plan=pro=1", "--set", "seats:=5", "--unset", "trial").out
    assert said == f"""'{SLUG}' has the metadata {{"plan": "pro=1", "seats": 5}}.\n"""
    tenant_id = tenancy.ok("show", SLUG, "--json").json["id"]
    record = tenancy.ok("update", tenant_id, "--name", "Ünï", "--json").json
    assert (record["name"], record["metadata"]) == ("Ünï", {"plan": "pro=1", "seats": 5})
    assert tenancy.ok("update", SLUG, "--metadata", '{"plan": "gold"}', "--json").json["metadata"] == {"plan": "gold"}
    changes = [(each["action"], each["remark"]) for each in tenancy.ok("history", SLUG, "--json").json[2:]]
    assert changes == [
        ("update", "set plan, seats; unset trial"),
        ("update", "name"),
        ("update", "set plan; unset seats"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No change was given."),
        (["--set", "plan"], "not of the form KEY=TEXT"),
        (["--set", "=x"], "not of the form KEY=TEXT"),
        (["--set", ":=1"], "not of the form KEY=TEXT"),
        (["--set", "seats:=five"], "The value of --set 'seats' is not JSON."),
        (["--set", "seats:=NaN"], 'metadata["seats"] is NaN'),
        (["--metadata", "[1]"], "--metadata is not a valid JSON object"),
        (["--metadata", '{"a": ["\\ud800"]}'], 'metadata["a"][0] contains a NUL or a lone surrogate'),
        (["--metadata", "{}", "--set", "a=b"], "Pass either --metadata, or --set and --unset."),
        (["--set", "a=b", "--unset", "a"], "both set and unset"),
    ],
)
def test_other_changes_are_refused(arguments: list[str], message: str, sqlite_url: str) -> None:
    command = Command(sqlite_url)
    command.ok("create", "acme")
    outcome = command("update", "acme", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert command.ok("show", "acme", "--json").json["metadata"] == {}
