"""The benchmarks work, and detect contestants that do not. No test depends on speed.

`python -m benchmarks` runs as users run it, and each scenario runs once in this process, which is faster.
"""

import gc
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import ApplicationRecorder, Notification, StoredEvent
from eventsourcing.popo import POPOApplicationRecorder
from sqlalchemy import make_url

from benchmarks import report
from benchmarks.__main__ import FORMS, main
from benchmarks.catalog import NATIVE, OURS_SQLITE, SCENARIOS, UPSTREAM, Contestant, Scenario
from benchmarks.catalog import find_scenarios as find
from benchmarks.databases import Databases
from benchmarks.environments import find_python
from benchmarks.events import Ledger, aggregates
from benchmarks.measurement import WorkNotDoneError, measure_calls, measure_threads
from benchmarks.one_run import prepare, run
from benchmarks.results import Results
from benchmarks.rounds import Plan, Rounds
from benchmarks.runners.__main__ import main as measure_runners
from benchmarks.runners.system import LIBRARY
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tenancy.testing.postgresql import Postgres, fresh_database
from tests.unit.core.test_benchmark_reports import chart_texts

ROOT = Path(__file__).parents[2]
SMOKE = FORMS["smoke"]
SIZE = replace(SMOKE.size, seconds=0.01)


@pytest.fixture(autouse=True)
def _garbage_is_collected() -> Iterator[None]:
    """A measurement excludes existing objects from later garbage collections; undo that for other tests."""
    yield
    gc.unfreeze()


# -- as a user runs them --


def test_runners_are_measured_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    measure_runners(["--tenants", "2", "--workers", "2", "--events", "8", "--no-native"])
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()
    ]
    assert [row[:2] for row in rows] == [[name, "2"] for name in ("tenancy, 2 workers", *LIBRARY)]
    assert all(len(row) == len(header) and min(map(int, row[1:])) > 0 for row in rows)


def test_a_smoke_run_writes_a_table_a_chart_and_every_number(postgres_server: Postgres, tmp_path: Path) -> None:
    scenarios = find(["W1", "sqlite:R1:100"])
    names = ",".join(scenario.name for scenario in scenarios)
    url = postgres_server.url()
    command = [sys.executable, "-m", "benchmarks", "--smoke", "--scenarios", names, "--database", url]

    done = subprocess.run(
        [*command, "--output", str(tmp_path / "smoke")], cwd=ROOT, check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "smoke.json").read_text())
    assert list(found["scenarios"]) == [scenario.name for scenario in scenarios]
    for scenario in scenarios:
        took_part = found["scenarios"][scenario.name]["contestants"]
        assert list(took_part) == [c.name for c in scenario.contestants() if c.home == "ours" or find_python(c.home)]
        for contestant in took_part.values():
            assert contestant["median"] > 0
            assert contestant["p99_ms"] >= contestant["p50_ms"] > 0
            assert len(contestant["runs"]) == 1
    assert found["versions"]["ours"]["eventsourcing-sqlalchemy" if find_python("ours") else "eventsourcing"]
    assert {"fsync", "shared_buffers", "PostgreSQL"} <= set(found["databases"])
    assert {"cores", "processor"} <= set(found["machine"])
    assert re.fullmatch(r"[0-9a-f]{7,}( with changes)?|unknown", found["run"]["commit"])
    table = (tmp_path / "smoke.md").read_text()
    assert "| W1 | append 1 event per call |" in table
    assert "smoke.svg" in table
    assert chart_texts((tmp_path / "smoke.svg").read_text())
    for text in (table, json.dumps(found), done.stderr):  # A URL may contain a password.
        assert str(make_url(url).host) not in text


def test_a_failing_contestant_fails_the_run_and_is_reported(tmp_path: Path) -> None:
    scenario = find(["sqlite:R1:100"])[0]
    plan = Plan(scenarios=[scenario], rounds=2, size=SIZE, pythons={"ours": Path("/bin/false")})
    results = Results("test")
    doings: list[str] = []

    with Databases(None) as databases, Rounds(plan, databases, doing=doings.append) as rounds:
        runs = len(list(rounds.run(scenario, results)))

    assert runs == plan.total == 4
    assert [(c.name, reason) for _, c, reason in results.failures()] == [
        ("ours-sqlite", "The worker printed nothing."),
        ("sqlite3", "The worker printed nothing."),
    ]
    report.write(results, tmp_path / "failed")
    assert "- sqlite:R1:100, raw sqlite3: The worker printed nothing." in (tmp_path / "failed.md").read_text()
    found = json.loads((tmp_path / "failed.json").read_text())["scenarios"][scenario.name]["contestants"]
    assert found["sqlite3"] == {"error": "The worker printed nothing."}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenarios", "W9"], "Unknown scenario 'W9'. Use one of: W1, W2:10,"),
        (["--events", "5"], "--events is at least 2000"),
        (["--rounds", "0"], "0 is not above 0"),
    ],
)
def test_invalid_arguments_are_refused_before_any_work(
    arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)

    assert message in capsys.readouterr().err


def test_rounds_are_reduced_when_time_is_up_but_at_least_one() -> None:
    scenario = find(["sqlite:W1"])[0]
    plan = Plan(scenarios=[scenario], rounds=3, size=SIZE, pythons={"ours": Path(sys.executable)}, until=0.0)
    results = Results("test")

    with Databases(None) as databases, Rounds(plan, databases, doing=lambda _: None) as rounds:
        assert len(list(rounds.run(scenario, results))) == plan.total

    assert {name: len(runs.runs) for name, runs in results.found[scenario.name].items()} == {
        "ours-sqlite": 1,
        "sqlite3": 1,
    }


# -- each scenario, for each contestant available in this interpreter --

# One of each family, and the other driver in one write and one read scenario.
NAMES = ("W1", "W2:10", "W3:8", "W4:16", "P1", "W5", "R1:10", "R2:10", "R3", "R3c", "T1", "M1", "fleet", "sqlite")
WITHOUT_ENVIRONMENT = [
    (scenario, contestant)
    for scenario in find(NAMES)
    for contestant in scenario.contestants()
    if (contestant.home == "ours" and (contestant.name != "ours-psycopg" or scenario.name in ("W1", "R2:10")))
    or (contestant is NATIVE and scenario.database == "sqlite")
]


@pytest.fixture(scope="module")
def prepared() -> dict[tuple[str, str, str], str]:
    """The URLs of databases shared by several scenarios."""
    return {}


@pytest.fixture(scope="module")
def place_of(
    postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory, prepared: dict[tuple[str, str, str], str]
) -> Iterator[Callable[[Scenario, Contestant], str]]:
    """Return a function that creates a contestant's database for a scenario, and returns its URL."""
    resources = ExitStack()

    def fresh(scenario: Scenario) -> str:
        if scenario.database == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('bench') / 'bench.db'}"
        return str(postgres_server.url(resources.enter_context(fresh_database(postgres_server)))).replace(
            "+psycopg2", ""
        )

    def place(scenario: Scenario, contestant: Contestant) -> str:
        if scenario.needs is None or contestant.name == "memory":
            return fresh(scenario)
        key = (contestant.name, scenario.database, scenario.needs)
        if key not in prepared:
            prepared[key] = fresh(scenario)
            assert prepare(contestant, scenario.needs, prepared[key], SIZE)["prepared"] > 0
        return prepared[key]

    with resources:
        yield place


def test_no_family_of_scenarios_is_missing() -> None:
    assert {(s.family, s.database) for s, _ in WITHOUT_ENVIRONMENT} == {(s.family, s.database) for s in SCENARIOS}


@pytest.mark.parametrize(
    ("scenario", "contestant"), WITHOUT_ENVIRONMENT, ids=[f"{s.name}-{c.name}" for s, c in WITHOUT_ENVIRONMENT]
)
def test_the_scenario_does_its_work(
    scenario: Scenario, contestant: Contestant, place_of: Callable[[Scenario, Contestant], str]
) -> None:
    result = run(contestant, scenario, place_of(scenario, contestant), SIZE)

    assert result["value"] > 0
    assert result["calls"] > 0
    assert result["p99_ms"] >= result["p50_ms"] > 0
    json.dumps(result)


# -- contestants that do not do the work --


class LosesEvents(POPOApplicationRecorder):
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        super().insert_events(stored_events[1:])
        return None


class WritesTwice(POPOApplicationRecorder):
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        ids = super().insert_events(stored_events)
        super().insert_events([replace(event, originator_id=uuid4()) for event in stored_events])
        return ids


class ReturnsWrongIds(POPOApplicationRecorder):
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        return [number + 1 for number in super().insert_events(stored_events) or ()]


class ChangesStates(POPOApplicationRecorder):
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        return super().insert_events([replace(event, state=event.state[:-1]) for event in stored_events])


class MixesVersions(POPOApplicationRecorder):
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        super().insert_events(stored_events[::-1])
        return None


class ReadsBackwards(POPOApplicationRecorder):
    def select_notifications(self, *args: Any, **kwargs: Any) -> list[Notification]:
        return list(super().select_notifications(*args, **kwargs))[::-1]


def append_and_check(recorder: ApplicationRecorder) -> None:
    ledger = Ledger()
    new = aggregates(3)
    for _ in range(5):
        events = next(new)
        ledger.wrote(events, recorder.insert_events(events))
    ledger.check(recorder)


def test_a_correct_recorder_passes_the_check() -> None:
    append_and_check(POPOApplicationRecorder())


@pytest.mark.parametrize(
    "wrong", [LosesEvents, WritesTwice, ReturnsWrongIds, ChangesStates, MixesVersions, ReadsBackwards]
)
def test_an_incorrect_recorder_fails_the_check(wrong: type[ApplicationRecorder]) -> None:
    with pytest.raises(WorkNotDoneError):
        append_and_check(wrong())


def test_a_lost_append_fails_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    insert = SQLAlchemyApplicationRecorder.insert_events
    calls = iter(range(10**9))

    def forgetful(self: SQLAlchemyApplicationRecorder, events: Sequence[StoredEvent], **kwargs: Any) -> Any:
        return [10**6] if next(calls) == 3 else insert(self, events, **kwargs)

    monkeypatch.setattr(SQLAlchemyApplicationRecorder, "insert_events", forgetful)

    with pytest.raises(WorkNotDoneError, match="events were written, but"):
        run(OURS_SQLITE, find(["sqlite:W1"])[0], f"sqlite:///{tmp_path / 'bench.db'}", SIZE)


@pytest.mark.parametrize("name", ["sqlite:R1:100", "sqlite:R2:100"])
def test_an_incomplete_read_fails_a_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'bench.db'}"
    prepare(OURS_SQLITE, "log", url, SIZE)
    for method in ("select_events", "select_notifications"):
        select = getattr(SQLAlchemyApplicationRecorder, method)
        monkeypatch.setattr(
            SQLAlchemyApplicationRecorder,
            method,
            lambda self, *args, _select=select, **kwargs: [*(found := _select(self, *args, **kwargs))[:1], *found[2:]],
        )

    with pytest.raises(WorkNotDoneError):
        run(OURS_SQLITE, find([name])[0], url, SIZE)


def test_our_own_package_does_not_run_as_upstream(tmp_path: Path) -> None:
    with pytest.raises(WorkNotDoneError, match="upstream imports the wrong package"):
        run(UPSTREAM, find(["sqlite:W1"])[0], f"sqlite:///{tmp_path / 'bench.db'}", SIZE)


def test_a_failing_thread_fails_the_measurement() -> None:
    def works(goes_on: Callable[[], bool]) -> list[float]:
        while goes_on():
            pass
        return [1.0]

    def fails(goes_on: Callable[[], bool]) -> list[float]:
        raise KeyError(goes_on.__name__)

    with pytest.raises(KeyError, match="goes_on"):
        measure_threads(0.01, [works, fails])


def test_a_measurement_has_at_least_one_call() -> None:
    def body(goes_on: Callable[[], bool]) -> list[float]:
        latencies: list[float] = []
        while goes_on():
            latencies.append(0.001)
        return latencies

    assert measure_threads(0.0, [body] * 2).work == 2
    assert measure_calls(0.0, int, abs, lambda *_: 1).work == 1
