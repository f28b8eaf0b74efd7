"""Run the scenarios in interleaved rounds: each contestant once per round, in its own process.

A machine's speed varies from minute to minute. Interleaving spreads the variation over all contestants.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from benchmarks.catalog import Contestant, Home, Scenario, Size
from benchmarks.environments import CHECKOUT
from benchmarks.limits import PGBENCH_VARIABLE
from benchmarks.one_run import PREPARE
from benchmarks.places import URL_VARIABLE
from benchmarks.results import Results, Runs

if TYPE_CHECKING:
    from benchmarks.databases import Databases

_WORKER: Final = Path(__file__).with_name("worker.py")
_PASSED_ON: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR")
_PREPARE_TIMEOUT: Final = 1800.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Scenarios, rounds, sizes and interpreters. Contestants without an interpreter are skipped."""

    scenarios: Sequence[Scenario]
    rounds: int
    size: Size
    pythons: Mapping[Home, Path]
    until: float | None = None
    """Deadline on the monotonic clock: scenarios then get fewer rounds, but at least one."""

    def contestants(self, scenario: Scenario) -> list[Contestant]:
        """Return the contestants of a scenario."""
        return [contestant for contestant in scenario.contestants() if contestant.home in self.pythons]

    @property
    def total(self) -> int:
        """The number of runs."""
        return self.rounds * sum(len(self.contestants(scenario)) for scenario in self.scenarios)

    def until_of(self, scenario: Scenario, began: float) -> float | None:
        """Return a scenario's deadline, if scenarios share the time by their numbers of contestants."""
        if self.until is None:
            return None
        runs = [len(self.contestants(one)) for one in self.scenarios]
        done = sum(runs[: self.scenarios.index(scenario) + 1])
        return began + (self.until - began) * done / max(1, sum(runs))


class Rounds:
    """Runs a plan. Use it as a context manager, which drops the databases shared by rounds."""

    def __init__(self, plan: Plan, databases: Databases, *, doing: Callable[[str], None]) -> None:
        self._plan = plan
        self._databases = databases
        self._doing = doing
        self._began = time.monotonic()
        self._resources = ExitStack()
        self._kept = ExitStack()
        self._prepared: dict[tuple[str, str, str], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._kept.close()
        self._resources.close()

    def run(self, scenario: Scenario, results: Results) -> Iterator[None]:
        """Run all rounds of a scenario into the results; yield after each run.

        A contestant that fails once is skipped in later rounds.
        """
        with self._kept:
            yield from self._run(scenario, results)

    def _run(self, scenario: Scenario, results: Results) -> Iterator[None]:
        contestants = self._plan.contestants(scenario)
        found = results.found[scenario.name] = {contestant.name: Runs() for contestant in contestants}
        until = self._plan.until_of(scenario, self._began)
        for number in range(self._plan.rounds):
            if number and until is not None and time.monotonic() > until:
                yield from [None] * (len(contestants) * (self._plan.rounds - number))
                return
            first = number % len(contestants) if contestants else 0
            # Each round starts with another contestant, so that none always runs after the same one and its side
            # effects.
            for contestant in contestants[first:] + contestants[:first]:
                runs = found[contestant.name]
                if runs.error is None:
                    self._doing(f"{scenario.name}, round {number + 1} of {self._plan.rounds}: {contestant.title}")
                    self._run_once(scenario, contestant, runs)
                yield

    def _run_once(self, scenario: Scenario, contestant: Contestant, runs: Runs) -> None:
        with ExitStack() as resources:
            if scenario.needs is not None and contestant.name != "memory":
                url = self._prepare(scenario, contestant, runs)
            else:
                until = self._kept if scenario.keeps_databases else resources
                url = until.enter_context(self._databases.fresh(scenario.database))
            if runs.error is not None:
                return
            self._databases.settle(scenario.database)
            size = self._plan.size
            timeout = 120 + 20 * size.seconds + size.tenants + size.fleet / 10
            result = self._work(contestant, scenario.name, url, timeout)
        if "error" in result:
            runs.error = result["error"]
        else:
            runs.runs.append(result)

    def _prepare(self, scenario: Scenario, contestant: Contestant, runs: Runs) -> str:
        """Return the URL of the contestant's filled database, which several scenarios share."""
        key = (contestant.name, scenario.database, str(scenario.needs))
        if key not in self._prepared:
            self._doing(f"{scenario.name}: {contestant.title} fills a database")
            url = self._resources.enter_context(self._databases.fresh(scenario.database))
            result = self._work(contestant, f"{PREPARE}{scenario.needs}", url, _PREPARE_TIMEOUT)
            if "error" in result:
                runs.error = result["error"]
                return ""
            self._databases.vacuum(url)
            self._prepared[key] = url
        return self._prepared[key]

    def _work(self, contestant: Contestant, what: str, url: str, timeout: float) -> dict[str, Any]:
        """Run a worker and return its result, which may be an error."""
        options = [f"--{name}={value}" for name, value in asdict(self._plan.size).items()]
        # -P keeps the worker's and the current directory off sys.path.
        command = [str(self._plan.pythons[contestant.home]), "-P", str(_WORKER), contestant.name, what, *options]
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {URL_VARIABLE: url, PGBENCH_VARIABLE: self._databases.pgbench() or ""}
        if contestant.home == "ours":
            environment["PYTHONPATH"] = str(CHECKOUT)
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=_WORKER.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # To kill its children with it.
        )
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return {"error": f"The worker timed out after {timeout:.0f} seconds."}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        lines = output.splitlines()
        try:
            result: dict[str, Any] = json.loads(lines[-1])
        except (IndexError, ValueError):
            sys.stderr.write(errors)
            last = errors.strip().splitlines()[-1:] or ["The worker printed nothing."]
            return {"error": last[0]}
        return result
