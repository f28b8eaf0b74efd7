"""The jobs commands, as operators use them: run, list, show, resume, cancel."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tenancy import Tenancy
from tests.acceptance.commands import Command
from tests.acceptance.test_cli_screen import Terminal
from tests.samples.counting_job import Kennel, create_tables, effects, starts
from tests.support.job_process import APP, KIND

SLUGS = ["acme", "globex", "initech"]

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of forkpty:DeprecationWarning")


@pytest.fixture
def tenancy(sqlite_url: str) -> Command:
    """The command on a database with three tenants."""
    return Command(sqlite_url, APP)


@pytest.fixture(autouse=True)
def tenants(sqlite_url: str) -> Iterator[Tenancy]:
    """The same fleet in this process."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": sqlite_url}) as fleet:
        for _ in fleet.create_many(SLUGS):
            pass
        create_tables(fleet)
        yield fleet


def run(**parameters: object) -> list[str]:
    """Return the arguments that run the job of the tests."""
    return ["jobs", "run", KIND, "--parameters", json.dumps(parameters)]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_job_runs_and_says_so(tenancy: Command, tenants: Tenancy) -> None:
    outcome = tenancy.ok(*run(), "--actor", "crm:7")
    (job,) = tenants.jobs.list()
    assert (outcome.out, outcome.err) == (f"Job {job.id} (count): 3 done.\n", "")
    assert (job.actor, job.code_version) == ("crm:7", "7.1")
    assert effects(tenants) == dict.fromkeys(SLUGS, 1)


def test_the_filters_choose_tenants(tenancy: Command, tenants: Tenancy) -> None:
    tenants.create("umbrella", metadata={"plan": "free"})
    tenancy.ok(*run(), "--where", "plan=free")
    assert set(effects(tenants)) == {"umbrella"}
    tenancy.ok(*run(), "acme", "globex", "--except", "acme")
    assert set(effects(tenants)) == {"globex", "umbrella"}
    tenants.suspend("initech")
    tenancy.ok(*run(), "--status", "suspended")
    assert set(effects(tenants)) == {"globex", "initech", "umbrella"}


def test_a_dry_run_shows_the_plan_and_records_nothing(tenancy: Command, tenants: Tenancy) -> None:
    outcome = tenancy.ok(*run(steps=2), "--dry-run", "--limit", "2")
    assert re.findall(r"\S+(?: \S+)*", outcome.out) == ["tenant", "would do", "acme", "2 steps", "globex", "2 steps"]
    plan = tenancy.ok(*run(), "--dry-run", "--canary", "1", "--json", "acme", "globex").json
    assert plan["kind"] == "count"
    assert [(item["tenant"], item["summary"], item["is_canary"]) for item in plan["items"]] == [
        ("acme", "1 steps", True),
        ("globex", "1 steps", False),
    ]
    assert plan["next_steps"] == [f"tenancy jobs run {KIND} --parameters '{{}}' --canary 1 --json acme globex"]
    assert tenants.jobs.list() == []
    assert starts(tenants) == {}


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_without_work_nothing_is_recorded(tenancy: Command, tenants: Tenancy, options: tuple[str, ...]) -> None:
    assert tenancy.ok(*run(idle=SLUGS), *options).out == "Nothing to do.\n"
    assert tenants.jobs.list() == []


def test_without_work_json(tenancy: Command) -> None:
    assert tenancy.ok(*run(idle=SLUGS), "--json").json == {"event": "ended", "job": None, "next_steps": []}
    assert tenancy.ok(*run(idle=SLUGS), "--json", "--dry-run").json == {"kind": "count", "items": [], "next_steps": []}


def test_a_failure_is_shown_retried_and_listed(tenancy: Command, tenants: Tenancy, tmp_path: Path) -> None:
    cure = tmp_path / "cure"
    outcome = tenancy(*run(poisoned=["globex"], cure=str(cure)))
    assert outcome.code == 7
    (job,) = tenants.jobs.list()
    assert outcome.out == f"Job {job.id} (count): 2 done, 1 failed.\n"
    failed = r"failed: 'globex' builtins\.ValueError at tests\.samples\.counting_job:Count\.run:\d+\n"
    error = f"error: 1 of 3 tenants have failed.\n       See: tenancy jobs show {job.id}. "
    error += f"Fix the cause, then resume: tenancy jobs resume {job.id}\n"
    assert re.fullmatch(failed + re.escape(error), outcome.err)
    shown = tenancy.ok("jobs", "show", str(job.id)).out
    assert re.search(failed, shown)
    assert f"tenancy jobs resume {job.id}" in shown
    assert re.search(rf"{job.id} +count +failed +\S+ \S+ +3 +2 +0 +1 +0 ", tenancy.ok("jobs", "list").out)
    cure.touch()
    assert tenancy.ok("jobs", "resume", str(job.id)).out == f"Job {job.id} (count): 3 done.\n"
    assert starts(tenants) == {"acme": 1, "globex": 2, "initech": 1}


def test_json_has_a_line_for_each_event(tenancy: Command, tenants: Tenancy) -> None:
    outcome = tenancy(*run(poisoned=["globex"], skipped=["initech"]), "--json")
    assert outcome.code == 7
    started, *items, ended = lines(outcome.out)
    (job,) = tenants.jobs.list()
    assert (started["event"], started["job"]["status"], started["job"]["counts"]["pending"]) == (
        "started",
        "running",
        3,
    )
    assert started["job"]["next_steps"] == [f"tenancy jobs {verb} {job.id}" for verb in ("show", "resume", "cancel")]
    assert {each["event"] for each in items} == {"item"}
    statuses = {each["item"]["tenant"]: each["item"]["status"] for each in items}
    assert statuses == {"acme": "done", "globex": "failed", "initech": "skipped"}
    assert (ended["event"], ended["job"]["status"]) == ("ended", "failed")
    assert ended["job"]["next_steps"] == [f"tenancy jobs {verb} {job.id}" for verb in ("show", "resume")]
    assert outcome.error["code"] == "partly_done"
    assert "canary globex" not in outcome.out + outcome.err
    shown = tenancy.ok("jobs", "show", str(job.id), "--json").json
    assert [item["error"] for item in shown.pop("items")] == ["builtins.ValueError"]
    assert tenancy.ok("jobs", "list", "--json").json == [shown]
    assert shown == ended["job"]


def test_too_many_failures_halt_the_job(tenancy: Command, tenants: Tenancy) -> None:
    outcome = tenancy(*run(poisoned=SLUGS), "--error-budget", "0", "--processes", "1", "--json")
    assert outcome.code == 7
    assert outcome.error["message"] == ("The job was halted. 1 of 3 items have failed; the error budget is 0.")
    (job,) = tenants.jobs.list()
    outcome = tenancy("jobs", "resume", str(job.id), "--error-budget", "100%", "--json")
    assert outcome.error["message"] == "3 of 3 tenants have failed."


def test_the_check_runs_after_the_canaries(tenancy: Command, tenants: Tenancy, tmp_path: Path) -> None:
    mark = tmp_path / "checked"
    outcome = tenancy(*run(), "--canary", "1", "--check", f"touch '{mark}'; exit 3")
    assert outcome.code == 7
    assert mark.exists()
    assert "The job was halted. The check after the canaries has exited with 3." in outcome.err
    assert effects(tenants) == {"acme": 1}
    (job,) = tenants.jobs.list()
    assert f"tenancy jobs resume {job.id} --check CMD" in outcome.err
    outcome = tenancy("jobs", "resume", str(job.id))
    assert (outcome.code, "needs the check" in outcome.err) == (2, True)
    outcome = tenancy.process("jobs", "resume", str(job.id), "--check", "echo well", "--json")
    assert outcome.code == 0
    assert lines(outcome.out)[-1]["job"]["status"] == "done"
    assert "well" in outcome.err


def test_a_check_needs_canaries(tenancy: Command, tenants: Tenancy) -> None:
    outcome = tenancy(*run(), "--check", "true")
    assert outcome.code == 2
    assert "--canary" in outcome.err
    assert tenants.jobs.list() == []


def test_a_halted_job_is_cancelled(tenancy: Command, tenants: Tenancy) -> None:
    assert tenancy(*run(poisoned=["acme"]), "--canary", "1").code == 7
    (job,) = tenants.jobs.list()
    out = f"Cancelled job {job.id}: 2 of 3 tenants are left as they are.\n"
    assert tenancy.ok("jobs", "cancel", str(job.id)).out == out
    assert tenancy.ok("jobs", "cancel", str(job.id), "--json").json["status"] == "cancelled"
    outcome = tenancy("jobs", "resume", str(job.id), "--json")
    assert (outcome.code, outcome.error["code"]) == (5, "job_ended")


def test_old_jobs_are_removed(tenancy: Command, tenants: Tenancy) -> None:
    for _ in range(3):
        tenancy.ok(*run())
    last, first = (str(tenants.jobs.list()[number].id) for number in (0, 2))
    assert tenancy.ok("jobs", "remove", "--older-than", "1h").out == "Removed 0 jobs.\n"
    assert first in tenancy.ok("jobs", "remove", first, "--dry-run").out
    assert tenancy.ok("jobs", "remove", first, first).out == "Removed 1 job.\n"
    removed = tenancy.ok("jobs", "remove", "--older-than", "0m", "--keep", "1", "--json").json
    assert [(each["status"], each["next_steps"]) for each in removed] == [("done", [])]
    assert [str(job.id) for job in tenants.jobs.list()] == [last]
    tenancy(*run(poisoned=["acme"]), "--canary", "1")
    halted = str(tenants.jobs.list()[0].id)
    outcome = tenancy("jobs", "remove", halted, last, "--json")
    assert (outcome.code, outcome.error["code"]) == (5, "job_not_ended")
    assert len(tenants.jobs.list()) == 2
    for wrong in ([], [last, "--older-than", "1d"], ["--older-than", "soon"]):
        assert tenancy("jobs", "remove", *wrong).code == 2


def test_an_unknown_job(tenancy: Command) -> None:
    for verb in ("show", "resume", "cancel", "remove"):
        outcome = tenancy("jobs", verb, str(uuid4()), "--json")
        assert (outcome.code, outcome.error["code"]) == (3, "job_not_found")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["jobs", "run", "nowhere:Nothing"], 1, "nowhere"),
        (["jobs", "run", "tests.samples.counting_job:Kennel"], 2, "class of JobKind"),
        ([*run(), "nope"], 3, "There is no tenant 'nope'"),
        ([*run(), "--where", "plan"], 2, "KEY=VALUE"),
        ([*run(), "--error-budget", "half"], 2, "error budget"),
        ([*run(), "--status", "purging"], 2, "cannot be selected"),
        (["jobs", "run", KIND, "--parameters", "[1]"], 2, "--parameters is not a valid JSON object"),
    ],
)
def test_mistakes(tenancy: Command, tenants: Tenancy, arguments: list[str], code: int, error: str) -> None:
    outcome = tenancy(*arguments)
    assert (outcome.code, error in outcome.err) == (code, True), outcome
    assert tenants.jobs.list() == []


def test_executors_that_cannot_start_end_the_command(tenancy: Command, tenants: Tenancy, tmp_path: Path) -> None:
    code = tmp_path / "broken_fleet.py"
    text = "import sys\nfrom tests.samples.counting_job import tenants\nassert 'work' not in sys.argv\n"
    code.write_text(text, encoding="utf-8")
    outcome = tenancy.process("--app", "broken_fleet:tenants", *run(), PYTHONPATH=f"{tmp_path}:{Path.cwd()}")
    assert outcome.code == 1
    assert "have ended with errors. 3 tenants are left." in outcome.err
    (job,) = tenants.jobs.list()
    assert tenancy.ok("jobs", "resume", str(job.id)).out == f"Job {job.id} (count): 3 done.\n"


def test_a_terminal_shows_a_bar(tenancy: Command) -> None:
    terminal = Terminal(tenancy, *run(poisoned=["globex"]))
    assert terminal.end() == 7
    assert re.search(r"count .*\d/3", terminal.output)
    assert "failed: 'globex' builtins.ValueError" in terminal.output
