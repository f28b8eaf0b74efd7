"""The runner commands, as operators use them: start, status, retry, skip."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from uuid import UUID

import pytest

from tenancy import Tenancy
from tenancy.runner.failures import FailureStore, failure_of
from tests.acceptance.commands import PROGRAM, Command
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import Diaries
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.fleets import check, fleet, positions

CODE = """
from tenancy import Tenancy
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import SYSTEM
from tests.samples.training_school.views import CountersView, DogCounters
tenants = Tenancy(system=SYSTEM)
tenants.project(TrainingSchool, DogCounters, CountersView)
"""

# It is quarantined after some seconds of retries.
FAILING = ("retrying", "quarantined")


NOISE = """
import logging, threading, warnings
logging.getLogger("shop").warning("the till is open")
warnings.warn("an old call")
keeper = threading.Thread(target=lambda: {}["canary"], name="shopkeeper")
keeper.start()
keeper.join()
try:
    int("canary")
except ValueError:
    logging.getLogger("shop").exception("it is no number")
"""


@contextmanager
def started(
    url: str, directory: Path, *options: str, more: str = "", root: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a started runner; its log is in `directory`."""
    (directory / "kennel_fleet.py").write_text(CODE + more)
    environment = {**os.environ, "SQLALCHEMY_URL": url, "PYTHONPATH": f"{directory}{os.pathsep}{root or Path.cwd()}"}
    command = [sys.executable, "-m", "tenancy", "--app", "kennel_fleet:tenants", "runner", "start", *options]
    log = directory / "runner.log"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process:
        try:
            wait_until(lambda: "Runner started" in log.read_text() or process.poll() is not None, "it works", 60)
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.kill()


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


def states(command: Command) -> dict[tuple[str, str], str]:
    shown = command.ok("runner", "status", "--json")
    return {(each["tenant"], each["follower"]): each["state"] for each in shown.json}


def is_current(command: Command, follower: tuple[str, str]) -> bool:
    return states(command)[follower] == "current"


def test_start_status_retry_skip_and_end(url: str, tmp_path: Path) -> None:
    command = Command(url, app=None)
    with fleet(url, ["acme", "globex"]) as tenants, started(url, tmp_path, "--workers", "2", "--json") as process:
        expected = {tenants["globex"].get(TrainingSchool).register("Rex", "sit"): ["Rex", "sit"]}
        dog_id = tenants["acme"].get(TrainingSchool).register("Fido", "sit", "poison", "beg")
        wait_until(
            lambda: states(command)["acme", "Diaries"] in FAILING, "it fails", progress=lambda: positions(tenants)
        )
        # A follower of Diaries is current for good only after Diaries.
        for follower in ("globex", "Diaries"), ("globex", "Summaries"), ("acme", "Summaries"):
            wait_until(partial(is_current, command, follower), "it continues", progress=lambda: positions(tenants))
        for slug in "acme", "globex":
            wait_until(partial(is_current, command, (slug, "DogCounters")), "so do projections")
        check(tenants, "globex", expected)
        assert {key for key, state in states(command).items() if state != "current"} == {("acme", "Diaries")}
        shown = command.ok("runner", "status", "acme").out
        assert "tests.samples.training_school.system.Poisoned" in shown
        assert "globex" not in shown
        assert command.ok("runner", "retry", "globex").out == "No follower of 'globex' is failing.\n"
        refused = command("runner", "skip", "acme", "Diaries", "2")
        assert (refused.code, "notification 2 cannot be skipped" in refused.err) == (1, True)
        command.ok("runner", "skip", "acme", "Diaries", "3", "--actor", "ops-7")
        wait_until(
            lambda: set(states(command).values()) == {"current"}, "it resumes", progress=lambda: positions(tenants)
        )
        assert tenants["acme"].get(Diaries).entries(dog_id) == ["Fido", "sit", "beg"]
        assert command.ok("history", "acme", "--json").json[-1]["actor"] == "ops-7"
        process.send_signal(signal.SIGTERM)
        written = (tmp_path / "runner.log").read_text
        assert process.wait(timeout=60) == 0, written()
        records = [json.loads(line) for line in written().splitlines()]
        assert (records[0]["message"][:14], records[0]["workers"]) == ("Runner started", 2)
        failed = [each for each in records if each["message"].startswith("Follower Diaries failed at notification 3, ")]
        assert {(each["tenant_id"], each["tenant"]) for each in failed} == {(str(tenants["acme"].id), "acme")}
        assert {(each["event"], each["code"], each["follower"]) for each in failed} <= {
            ("follower.failed", "internal", "Diaries"),
            ("follower.quarantined", "internal", "Diaries"),
        }
        assert records[-1]["event"] == "runner.stopped"


def test_every_logger_writes_lines_of_the_log(sqlite_url: str, tmp_path: Path) -> None:
    with fleet(sqlite_url, ["acme"]), started(sqlite_url, tmp_path, "--json", more=NOISE):
        pass
    lines = (tmp_path / "runner.log").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [each["logger"] for each in records] == ["shop", "py.warnings", "tenancy.runner", "shop", "tenancy.runner"]
    assert {datetime.fromisoformat(each["at"]).tzinfo for each in records} == {UTC}
    assert [each.get("error") for each in records] == [None, None, "builtins.KeyError", "builtins.ValueError", None]
    assert records[3]["frames"][-1].startswith("kennel_fleet:<module>:")
    assert "canary" not in "".join(lines)
    with fleet(sqlite_url), started(sqlite_url, tmp_path, more=NOISE):
        pass
    text = (tmp_path / "runner.log").read_text().splitlines()
    assert all(datetime.fromisoformat(line.split()[0]).tzinfo == UTC for line in text)
    assert "canary" not in "".join(text)


PRINTING = """
import logging, sys, traceback, warnings
print("half a line, ", end="")
print("a price of {3}")
print('{"from": "the shop"}')
sys.stderr.write("to the other stream\\n")
try:
    int("canary")
except ValueError:
    traceback.print_exc()
logging.getLogger("shop").warning("%d dogs", "canary", "canary")
logging.getLogger("sqlalchemy.pool").error("reset failed: %s", "canary")
logging.getLogger("psycopg").warning("error ignored in rollback: %s", "canary")
logging.getLogger("shop").error("failed: %s", ValueError("canary"))
class Kennel:
    def __del__(self):
        raise RuntimeError("canary")
Kennel()
"""


def test_json_means_that_every_line_is_json(sqlite_url: str, tmp_path: Path) -> None:
    with fleet(sqlite_url, ["acme"]), started(sqlite_url, tmp_path, "--json", more=PRINTING):
        pass
    text = (tmp_path / "runner.log").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert "canary" not in text
    of_shop, records = [each for each in records if "from" in each], [each for each in records if "at" in each]
    assert of_shop == [{"from": "the shop"}]
    printed = [(each["stream"], each["message"]) for each in records if each["event"] == "output.printed"]
    assert printed[:2] == [("stdout", "half a line, a price of {3}"), ("stderr", "to the other stream")]
    assert printed[2][1].startswith("A traceback was printed: ValueError at kennel_fleet:<module>:")
    messages = [each["message"] for each in records if each["event"] == "log"]
    shortened = ["%d dogs", "reset failed: %s", "error ignored in rollback: %s", "failed: builtins.ValueError"]
    assert messages == shortened
    assert [each["error"] for each in records if each["event"] == "finalizer.failed"] == ["builtins.RuntimeError"]


def test_an_unexpected_end_is_a_line_too(sqlite_url: str, tmp_path: Path) -> None:
    broken = (
        "from tenancy.runner import Runner\ndef start(self):\n    raise RuntimeError('canary')\nRunner.start = start\n"
    )
    (tmp_path / "broken_fleet.py").write_text(CODE + broken)
    environment = {**os.environ, "SQLALCHEMY_URL": sqlite_url, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"}
    command = [sys.executable, "-m", "tenancy", "--app", "broken_fleet:tenants", "runner", "start", "--json"]
    with fleet(sqlite_url):
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    (record,) = map(json.loads, ended.stderr.splitlines())
    assert (record["event"], record["error"], record["code"]) == ("process.failed", "builtins.RuntimeError", "internal")
    assert record["frames"][-1].startswith("broken_fleet:start:")


def test_retry_of_one_tenant_or_of_all(sqlite_url: str) -> None:
    command = Command(sqlite_url, app=None)
    with fleet(sqlite_url, ["acme", "globex"]) as tenants:
        failure_store = FailureStore(tenants.fleet.registry)

        def fail() -> None:
            for slug, follower, number in (
                ("acme", "Diaries", 3),
                ("globex", "Diaries", 5),
                ("globex", "Summaries", None),
            ):
                key = (tenants[slug].id, follower)
                failure = failure_of(ZeroDivisionError(), key, "TrainingSchool", number, None, max_attempts=1)
                failure_store.record(failure)

        fail()
        shown = command.ok("runner", "status", "globex").out
        assert "None" not in shown
        assert (
            command.ok("runner", "retry", "acme", "--follower", "Summaries").out
            == "No follower of 'acme' is failing.\n"
        )
        assert command.ok("runner", "retry", "acme").out == "Diaries of 'acme' retries notification 3.\n"
        fail()
        done = command.ok("runner", "retry", "--all", "--follower", "Diaries").out
        assert sorted(done.splitlines()) == [
            f"Diaries of {of}." for of in ("'acme' retries notification 3", "'globex' retries notification 5")
        ]
        assert command.ok("runner", "retry", "--all").out == "Summaries of 'globex' retries.\n"
        assert command.ok("runner", "retry", "--all").out == "No follower is failing.\n"
        fail()
        assert len(command.ok("runner", "retry", "--all", "--json").json) == 3
    for arguments, message in (
        (("acme", "--all"), "SLUG and --all are mutually exclusive"),
        ((), "No slug was given"),
        (("acme", "Diaries", "--follower", "Diaries"), "named twice"),
        (("--all", "--follower", "Dairies"), "'Dairies' is not part of this fleet"),
    ):
        refused = command("runner", "retry", *arguments)
        assert refused.code in (1, 2)
        assert message in refused.err


def test_metrics_port_that_cannot_be_used(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "kennel_fleet.py").write_text(CODE)
    with fleet(sqlite_url), socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = Command(sqlite_url, app="kennel_fleet:tenants")
        start = ("runner", "start", "--metrics-port")
        failed = command.process(*start, port, PYTHONPATH=f"{tmp_path}{os.pathsep}{Path.cwd()}")
    assert failed.code == 1
    assert f"--metrics-port {port} cannot be used: Address already in use." in failed.err
    assert "Choose another port" in failed.err
    for number in ("0", "99999"):
        refused = command(*start, number)
        assert (refused.code, "--metrics-port" in refused.err) == (2, True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("is_one_port", [True, False])
def test_health_and_metrics_are_served(is_one_port: bool, sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "kennel_fleet.py").write_text(CODE)
    health = free_port()
    metrics = health if is_one_port else free_port()
    variables = {**os.environ, "SQLALCHEMY_URL": sqlite_url, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"}
    command = [*PROGRAM, "--app", "kennel_fleet:tenants", "runner", "start"]
    ports = ["--health-port", str(health), "--metrics-port", str(metrics)]

    def get(path: str, port: int = health) -> tuple[int, str]:
        try:
            with closing(HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)) as connection:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
        except OSError:
            return 0, ""

    with (
        fleet(sqlite_url, ["acme"]),
        subprocess.Popen([*command, *ports], env=variables, stderr=subprocess.DEVNULL) as runner,
    ):
        try:
            wait_until(lambda: get("/live")[0] == 200, "the runner lives")
            wait_until(lambda: get("/ready")[0] == 200, "the runner is ready")
            assert "tenancy_runner" in get("/metrics", metrics)[1]
            assert get("/other")[0] == 404
        finally:
            runner.terminate()
        assert runner.wait(DEADLINE_SECONDS) == 0
    assert get("/live") == (0, "")


def test_health_port_that_cannot_be_used(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "kennel_fleet.py").write_text(CODE)
    with fleet(sqlite_url), socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = Command(sqlite_url, app="kennel_fleet:tenants")
        path = f"{tmp_path}{os.pathsep}{Path.cwd()}"
        failed = command.process("runner", "start", "--health-port", port, PYTHONPATH=path)
    assert failed.code == 1
    assert f"--health-port {port} cannot be used: Address already in use." in failed.err


def test_runner_needs_the_code(sqlite_url: str) -> None:
    with Tenancy(env={"SQLALCHEMY_URL": sqlite_url}) as tenants:
        tenants.init()
    failed = Command(sqlite_url, app=None).process("runner", "start")
    assert failed.code == 1
    assert "--app" in failed.err


TRACED = """
import atexit, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=open("spans.txt", "w"))))
trace.set_tracer_provider(provider)
"""


def test_tracing_uses_the_provider_of_the_code(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Path.cwd()
    monkeypatch.chdir(tmp_path)
    spans = tmp_path / "spans.txt"
    with (
        fleet(sqlite_url, ["acme"]) as tenants,
        started(sqlite_url, tmp_path, "--tracing", more=TRACED, root=repository),
    ):
        tenants["acme"].get(TrainingSchool).register("Fido")
        wait_until(lambda: '"name": "process TrainingSchool"' in spans.read_text(), "the spans are exported")


HOOKED = "tests.samples.hooked_kennels:tenants"


def test_reactions_of_the_command(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KENNEL_LOG", str(tmp_path / "kennel.log"))
    command = Command(sqlite_url, app=HOOKED)
    without = Command(sqlite_url, app=None)
    (acme,) = command.ok("create", "acme", "--json").json
    assert acme["status"] == "active"
    assert [each["hook"] for each in command.ok("show", "acme", "--json").json["hooks"]] == ["seed"]
    assert "hook 'seed' has run" in command.ok("show", "acme").out
    assert without("create", "globex", "--json").error["code"] == "not_registered"
    assert command.ok("runner", "react").out == "Reactions called: 1. Tenants with a failing reaction: 0.\n"
    monkeypatch.setenv("KENNEL_LOG", "/nowhere/kennel.log")
    command.ok("suspend", "acme")
    command.ok("resume", "acme")
    report = command.ok("runner", "react", "--json").json
    assert (report["processed"], report["owner"]) == (0, None)
    (status,) = without.ok("runner", "reactions", "--json").json
    assert (status["reaction"], status["state"], status["is_registered"]) == ("announce", "retrying", False)
    (failure,) = status["failures"]
    assert failure == report["failures"][0]
    assert (failure["tenant_id"], failure["number"], failure["last_number"]) == (acme["id"], 3, 4)
    assert failure["error"] == "builtins.FileNotFoundError"
    for shown in (command.ok("runner", "reactions").out, command.ok("runner", "status").out):
        assert re.search(
            r"announce +activated, purged, resumed, suspended +retrying +0 +none +acme +3 +1 +builtins.FileNotFound",
            shown,
        )
    assert without.ok("runner", "retry", "acme", "announce").out == "announce of 'acme' retries change 3.\n"
    assert without.ok("runner", "retry", "--all", "--json").json[0]["reaction"] == "announce"
    assert "announce of 'acme' skips change 3." in without.ok("runner", "skip", "acme", "announce", "3").out
    command.ok("purge", "acme", "--yes")
    command.ok("runner", "react")
    assert without.ok("runner", "retry", acme["id"]).out == "announce of a purged tenant retries change 4.\n"
    assert without.ok("runner", "skip", acme["id"], "announce", "4", "--json").json["number"] == 4
    assert without("runner", "retry", "acme").code == 3
    assert without("runner", "retry", str(UUID(int=1))).code == 3
    monkeypatch.setenv("KENNEL_LOG", str(tmp_path / "kennel.log"))
    command.ok("runner", "react")
    assert (tmp_path / "kennel.log").read_text().split()[-3:-1] == ["purged", "None"]
