"""Help texts, and the imports that showing them needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from tenancy.cli.app import COMMANDS, app
from tenancy.cli.commands import domains, jobs, migrations, runner
from tenancy.cli.errors import EXIT_CODES
from tests.acceptance.commands import ROOT, Command

EXPECTED = (
    "init create adopt list show usage rename update suspend resume archive restore delete undelete purge history env "
    "exec migrate rebuild ping doctor domains runner migrations jobs"
)
EXAMPLES = [
    *COMMANDS,
    *((f"domains {name}", function, example) for name, function, example in domains.COMMANDS),
    *((f"runner {name}", function, example) for name, function, example in runner.COMMANDS),
    *((f"migrations {name}", function, example) for name, function, example in migrations.COMMANDS),
    *((f"jobs {name}", function, example) for name, function, example in jobs.COMMANDS),
]
PAGE = ROOT / "docs" / "commands.md"
HEAVY = ("eventsourcing", "sqlalchemy", "eventsourcing_sqlalchemy", "tenancy.tenancy", "psycopg2")

COMMAND: Any = typer.main.get_command(app)


def verbs() -> Iterator[tuple[str, Any]]:
    """Yield all commands; those of a group have its name as prefix."""
    for name, verb in COMMAND.commands.items():
        if hasattr(verb, "commands"):
            yield from ((f"{name} {inner}", each) for inner, each in verb.commands.items() if not each.hidden)
        else:
            yield name, verb


def parameters() -> Iterator[tuple[str, Any]]:
    """Yield all arguments and options with their command."""
    for parameter in COMMAND.params:
        yield "", parameter
    for name, verb in verbs():
        for parameter in verb.params:
            yield name, parameter


def shown(parameter: Any) -> str:
    """Return the long form of an option; empty for an argument."""
    return str(max(parameter.opts, key=len)) if parameter.param_type_name == "option" else ""


def section_of(verb: str, page: str) -> str:
    """Return the section of a command."""
    found = re.search(rf"^### {verb}$(.*?)(?=^##)", page + "\n##", re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def test_the_list_of_verbs() -> None:
    assert " ".join(COMMAND.commands) == EXPECTED


def test_every_verb_and_every_option_has_help() -> None:
    assert [name for name, verb in verbs() if not (verb.help or "").strip()] == []
    without = [
        f"{name} {parameter.name}"
        for name, parameter in parameters()
        if parameter.name != "help" and not (getattr(parameter, "help", None) or "").strip()
    ]
    assert without == []


@pytest.mark.parametrize(("name", "example"), [(name, example) for name, _, example in EXAMPLES])
def test_help_of_a_verb_has_an_example_that_the_command_accepts(name: str, example: str, sqlite_url: str) -> None:
    output = " ".join(Command(sqlite_url).ok(*name.split(), "--help").out.split())
    assert f"Example: {' '.join(example.split())}" in output
    assert re.search(rf"tenancy (--app \S+ )?{name}\b", example)
    options = {option for option in re.findall(r" (--[a-z-]+)", example) if option != "--app"}
    assert options <= {option for verb, each in parameters() if verb == name for option in each.opts}


@pytest.mark.parametrize("arguments", [("--help",), ("runner", "--help"), ("jobs", "--help"), ("migrations", "--help")])
def test_no_line_about_a_verb_is_cut_off(arguments: tuple[str, ...], sqlite_url: str) -> None:
    listed = Command(sqlite_url).ok(*arguments).out.partition("Commands:")[2]
    assert listed
    assert "..." not in listed


@pytest.mark.parametrize(
    "arguments",
    [
        "env acme --format xml",
        "exec acme",
        "runner skip acme Reports x",
        "show",
        "create --wrong",
        "create --actor",
        "list --status",
        "list -x",
        "exec acme python --version",
        "runner start --lease",
        "runner status --wrong",
        "runner status --interval nan",
        "runner status --interval inf",
        "runner start --drain inf",
        "jobs show 4711",
        "jobs run --canary x",
        "jobs resume --wrong",
    ],
)
def test_error_of_usage_leads_to_the_help_of_its_verb(arguments: str, sqlite_url: str) -> None:
    verb = re.match(r"((runner|jobs) )?[a-z]+", arguments)
    assert verb is not None
    outcome = Command(sqlite_url)(*arguments.split())
    assert outcome.code == 2
    assert f"See: tenancy {verb[0]} --help\n" in outcome.err
    assert "Value error" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ("create acme --app fleet:tenants", "Put it before the command: tenancy --app ... create"),
        ("runner status --url sqlite:///x", "Put it before the command: tenancy --url ... runner status"),
        ("--json list", "Put it after the command: tenancy COMMAND --json"),
        ("runner --json status", "Put it after the command: tenancy runner COMMAND --json"),
    ],
)
def test_an_option_in_the_wrong_place_names_the_right_one(arguments: str, remedy: str, sqlite_url: str) -> None:
    outcome = Command(sqlite_url)(*arguments.split())
    assert outcome.code == 2
    assert remedy in outcome.err


def test_every_verb_writes_json() -> None:
    assert [name for name, verb in verbs() if "--json" not in {o for p in verb.params for o in p.opts}] == []


def test_destructive_verbs_have_dry_run_and_confirmation() -> None:
    for name in ("delete", "purge"):
        assert {"--dry-run", "--yes"} <= {option for each in COMMAND.commands[name].params for option in each.opts}


def undocumented(page: str) -> list[str]:
    """Return the commands, examples, options and exit codes that a page lacks."""
    missing = [name for name, _ in verbs() if not section_of(name, page)]
    missing += [example for name, _, example in EXAMPLES if example not in section_of(name, page)]
    before = page.partition("\n### ")[0]
    for name, parameter in parameters():
        text = before if name == "" or shown(parameter) in ("--json", "--actor", "--output") else section_of(name, page)
        if shown(parameter) not in ("", "--help") and f"`{shown(parameter)}" not in text:
            missing.append(f"{name} {shown(parameter)}".strip())
    codes = {0, 5, *EXIT_CODES.values()}
    missing += [f"exit code {code}" for code in codes if not re.search(rf"^\| {code} \|", page, re.MULTILINE)]
    missing += [f"error {code}" for code in EXIT_CODES if f"`{code}`" not in page]
    return missing


def test_every_verb_option_and_exit_code_is_documented() -> None:
    assert undocumented(PAGE.read_text(encoding="utf-8")) == []


def test_missing_documentation_of_a_verb_is_noticed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert undocumented(page.replace("`--reads`", "")) == ["suspend --reads"]
    assert undocumented(page.replace("| 6 |", "")) == ["exit code 6"]
    assert "resume" in undocumented(page.replace("### resume", ""))


def test_no_option_is_documented_that_does_not_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    known = {"--help", *(option for _, each in parameters() for option in (*each.opts, *each.secondary_opts))}
    assert set(re.findall(r"`(--[a-z-]+)", page)) - known == set()


# -- cost --


def test_help_loads_no_database() -> None:
    program = (
        "import sys\nfrom tenancy.__main__ import main\nsys.argv = ['tenancy', '--help']\n"
        f"code = main()\nprint([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.strip() == "[]"
    assert "purge" in done.stdout


def test_a_command_loads_only_what_it_needs(sqlite_url: str) -> None:
    Command(sqlite_url).ok("init")
    others = [f"tenancy.cli.commands.{name}" for name in ("create", "jobs", "runner", "migrate", "remove", "update")]
    unneeded = [
        *(
            "sqlalchemy_utils",
            "sqlalchemy.dialects.mssql",
            "alembic",
            "psycopg",
            "pg8000",
            "rich.table",
            "rich.console",
        ),
        *("tenancy.runner", "tenancy.operations", "tenancy.web", "tenancy.testing", "multiprocessing", *others),
    ]
    program = (
        "import gc, json, sys\nfrom tenancy.__main__ import main\nsys.argv = ['tenancy', 'list']\ncode = main()\n"
        "print(json.dumps([sorted(sys.modules), gc.isenabled()]), file=sys.stderr)\nsys.exit(code)"
    )
    environment = Command(sqlite_url, app=None).environment()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    modules, collects = json.loads(done.stderr)
    assert "tenancy.cli.commands.show" in modules
    assert [name for name in unneeded if name in modules] == []
    assert collects, "the garbage collector runs while a command works"


@pytest.mark.parametrize("arguments", ["-h", "list -h", "runner -h", "runner start -h", "jobs run -h"])
def test_the_short_option_shows_the_help(arguments: str, sqlite_url: str) -> None:
    command = Command(sqlite_url)
    long = arguments.replace("-h", "--help")
    assert command.ok(*arguments.split()).out == command.ok(*long.split()).out


def test_without_arguments_the_command_explains_itself(sqlite_url: str) -> None:
    for arguments in ([], ["runner"], ["jobs"]):
        outcome = Command(sqlite_url)(*arguments)
        assert (outcome.code, outcome.err) == (2, "")
        assert re.search(r"^Commands:\n  \w+", outcome.out, re.MULTILINE)


def test_the_version_is_that_of_the_distribution(sqlite_url: str) -> None:
    assert re.fullmatch(r"tenancy \d+\.\d+.*\n", Command(sqlite_url).ok("--version").out)


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_the_command_names_it(missing: str) -> None:
    program = (
        "import importlib.abc, importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {missing!r} else find(name, *rest)\n"
        "from tenancy.__main__ import main\nsys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == (
        "error: The command line needs the extra 'cli'.\n       pip install 'eventsourcing-sqlalchemy[cli]'\n"
    )


def test_no_line_of_the_list_of_verbs_is_cut_off(sqlite_url: str) -> None:
    assert "..." not in Command(sqlite_url).ok("--help").out.partition("Commands:")[2]
