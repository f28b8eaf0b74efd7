"""The commands below `tenancy migrations`, and what autogenerate writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.commands import Command


@pytest.fixture(params=["sqlite", "schema", "prefix"])
def command(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in the directory of a fleet whose migrations are set up."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    variables = {"TENANCY_TABLE_PREFIX": "{tenant}_"} if request.param == "prefix" else {}
    monkeypatch.chdir(tmp_path)
    command = Command(request.getfixturevalue(name), "tests.samples.evolving:fleet", variables)
    assert "migrations/env.py" in command.ok("migrations", "init").out
    command.ok("init")
    return command


def upgrade_of(revision: str) -> str:
    """Return the body of ``upgrade()`` in a revision, less comments."""
    (path,) = Path("migrations/versions").glob(f"{revision}_*.py")
    body = path.read_text().partition('"""Upgrade one tenant."""')[2].partition("def downgrade")[0]
    return "\n".join(line.strip() for line in body.splitlines() if line.strip() and "#" not in line)


def write(command: Command, revision: str, *arguments: str) -> str:
    command.ok("migrations", "revision", "-m", "a change", "--rev-id", revision, *arguments)
    return upgrade_of(revision)


def test_autogenerate_writes_what_the_views_lack(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(command, "a1", "--autogenerate")
    assert first.count("op.") == 1
    assert "op.create_table(own_name('dogcounters_tracking_totals')" in first
    command.ok("create", "acme")
    monkeypatch.setenv("MORE", "1")
    second = write(command, "b2", "--autogenerate")
    assert "own_name('dogcounters_tracking_parts')" in second
    assert "[f\"{own_name('dogcounters_tracking_totals')}.key\"]" in second
    assert "own_name('ix_dogcounters_tracking_totals_name')" in second
    assert "own_name('one_name')" in second
    assert "sa.Column('name'" in second  # a column, not a table
    assert "drop" not in second
    command.ok("create", "globex")
    assert write(command, "c3", "--autogenerate") == "pass"
    findings = {each["name"]: each["level"] for each in command("doctor", "--json").json["findings"]}
    assert findings["drift"] == "ok"


def test_heads_and_branches(command: Command) -> None:
    write(command, "a1")
    write(command, "b1", "--head", "base", "--branch-label", "billing", "--depends-on", "a1")
    write(command, "b2", "--head", "billing@head")
    command.ok("create", "acme")
    found = command("migrations", "heads", "--json").json["heads"]
    assert {each["revision"]: each["message"] for each in found} == {"a1": "a change", "b2": "a change"}
    assert "b2" in command("migrations", "heads").out
    assert "UPDATE" not in command("migrations", "sql", "acme").out
    assert command("migrations", "revision", "-m", "x", "--head", "nowhere").code == 1


def test_mistakes(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "already" in command("migrations", "init").err
    monkeypatch.setenv("TENANCY_MIGRATIONS", "")
    plain = Command(command.url, app=None, variables=command.variables)
    for arguments in (("init",), ("heads",), ("revision", "-m", "x"), ("sql", "acme")):
        outcome = plain("migrations", *arguments)
        assert (outcome.code, "TENANCY_MIGRATIONS" in outcome.err) in {(1, True), (2, True)}, outcome


def test_sql_is_written_and_not_run(command: Command) -> None:
    write(command, "a1", "--autogenerate")
    command.ok("create", "acme")
    write(command, "b2")
    path = next(Path("migrations/versions").glob("b2_*.py"))
    path.write_text(path.read_text().replace("    pass", "    op.execute('SELECT 1')", 1))
    out = command("migrations", "sql", "acme").out
    assert "SELECT 1" in out
    assert "CREATE TABLE" not in out
    assert ("search_path" in out) == (
        "schema" not in command.variables and "postgresql" in command.url and not command.variables
    )
