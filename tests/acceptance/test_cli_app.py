"""How the command selects the fleet."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.acceptance.commands import KENNEL, Command

CODE = """
from tenancy import Tenancy
from tests.samples.kennels import Reports

tenants = Tenancy(applications=[Reports])
"""


@pytest.fixture
def project(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in a directory with pyproject.toml, shopfront.py and a subdirectory."""
    (tmp_path / "shopfront.py").write_text(CODE)
    (tmp_path / "pyproject.toml").write_text('[tool.tenancy]\napp = "shopfront:tenants"\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "shopfront", raising=False)
    return Command(sqlite_url, app=None)


def test_it_is_named_in_pyproject(project: Command) -> None:
    assert project.ok("init", "--json").json["applications"] == ["Reports"]


def test_it_is_named_in_a_parent_directorys_pyproject(project: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("below")
    Path("pyproject.toml").write_text("[project]\nname = 'another'\n")
    assert project.ok("init", "--json").json["applications"] == ["Reports"]


def test_a_variable_overrides_pyproject_and_an_option_overrides_both(project: Command) -> None:
    by_variable = Command(project.url, app=f"{KENNEL}:tenants")
    assert by_variable.ok("init", "--json").json["applications"] == ["Kennel"]
    assert by_variable.ok("--app", "shopfront:tenants", "init", "--json").json["applications"] == ["Reports"]


def test_the_code_is_found_in_the_current_directory_as_a_process(project: Command) -> None:
    assert project.process("--app", "shopfront:tenants", "create", "acme").code == 0


def test_a_tenancy_object_serves_every_command_with_a_job(project: Command) -> None:
    """A command closes the object, and cannot open it again."""
    assert project.process("create", "acme").code == 0
    for command in (["migrate"], ["migrate", "--status"], ["jobs", "list"]):
        outcome = project.process(*command)
        assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("shopfront", "module:name"),
        ("shopfront:", "module:name"),
        ("nothing_here:tenants", "no module 'nothing_here'"),
        ("shopfront.deeper:tenants", "no module 'shopfront.deeper'"),
        ("shopfront:unknown", "has no 'unknown'"),
        (f"{KENNEL}:ready", "neither a Tenancy nor a function"),
        (f"{KENNEL}:failing", "RuntimeError: the moon is full"),
        ("broken:tenants", "SyntaxError"),
        ("needy:tenants", "No module named 'not_installed'"),
        ("leaving:tenants", "exits the process"),
    ],
)
def test_a_wrong_name_is_a_usage_error(project: Command, app: str, said: str) -> None:
    Path("broken.py").write_text("def tenants(:\n")
    Path("needy.py").write_text("import not_installed\n")
    Path("leaving.py").write_text("raise SystemExit(0)\n")
    outcome = project("--app", app, "list")
    if "shopfront" in sys.modules:
        sys.modules["shopfront"].tenants.close()  # as the end of the process would
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "text", ["[tool.tenancy", "[tool]\ntenancy = 1\n", "[tool.tenancy]\n", "[tool.tenancy]\napp = 1"]
)
def test_a_wrong_pyproject_is_a_usage_error(project: Command, text: str) -> None:
    Path("pyproject.toml").write_text(text)
    outcome = project("list")
    assert outcome.code == 2
    assert "pyproject.toml" in outcome.err


def test_a_typo_in_a_variable_is_an_error_and_a_platforms_variable_is_not(project: Command) -> None:
    project.ok("init")
    assert Command(project.url, variables={"TENANCY_PORT": "tcp://10.0.0.1:80"})("list").code == 0
    outcome = Command(project.url, variables={"TENANCY_SLUG": "dns"})("list")
    assert outcome.code == 2
    assert "TENANCY_SLUGS" in outcome.err


def test_only_the_named_database_is_used(project: Command, tmp_path: Path) -> None:
    Path("willful.py").write_text(CODE.replace("[Reports]", f"[Reports], env={{'SQLALCHEMY_URL': {project.url!r}}}"))
    other, secret = f"sqlite:///{tmp_path / 'other.db'}", "postgresql://postgres:hush@127.0.0.1:1/other"
    willful = Command("", app="willful:tenants")
    assert willful.process("create", "acme").code == 0
    for url, shown in ((other, "other.db"), (secret, "postgres:***@127.0.0.1:1/other")):
        outcome = willful.process("--url", url, "purge", "acme", "--yes")
        assert outcome.code == 2, outcome
        assert shown in outcome.err
        assert "test.db" in outcome.err
        assert "SQLALCHEMY_URL" in outcome.err
        assert "hush" not in outcome.err
    assert [each["slug"] for each in willful.process("--url", project.url, "list", "--json").json] == ["acme"]
    assert not Path("other.db").exists()


def test_a_hidden_url_is_not_passed_to_programs(project: Command) -> None:
    project.ok("create", "acme")
    outcome = project.process("exec", "acme", "--", "env", _TENANCY_URL=project.url)
    assert outcome.code == 0
    assert "_TENANCY_URL" not in outcome.out


@pytest.mark.parametrize(
    ("arguments", "code"), [("show unknown", 3), ("--wrong", 2), ("--url postgresql://postgres@127.0.0.1:1/x list", 6)]
)
def test_traceback_is_shown_on_request(project: Command, arguments: str, code: int) -> None:
    assert project.process("init").code == 0
    plain, traced = project.process(*arguments.split()), project.process("--traceback", *arguments.split())
    assert (plain.code, traced.code) == (code, code)
    assert "Traceback" not in plain.err
    assert traced.err.startswith("Traceback")
    assert traced.err.endswith(plain.err)
