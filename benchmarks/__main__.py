"""`python -m benchmarks`, or `make bench`: create the environments, run the rounds, write the report."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import report
from benchmarks.catalog import SCENARIOS, Home, Scenario, Size, find_scenarios
from benchmarks.databases import Databases, NoServerError
from benchmarks.environments import CHECKOUT, HOMES, EnvironmentFailedError, find_python, make_python
from benchmarks.preparation import MIN_APPLICATIONS, MIN_LOG
from benchmarks.results import Results
from benchmarks.rounds import Plan, Rounds

RESULTS: Final = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True)
class Form:
    """A preset amount of work."""

    rounds: int
    size: Size
    minutes: float | None = None


FORMS: Final = {
    "full": Form(5, Size(seconds=2.0, events=200_000, tenants=1000, applications=30, fleet=1000)),
    "quick": Form(3, Size(seconds=0.25, events=20_000, tenants=20, applications=10, fleet=200), minutes=4.0),
    "smoke": Form(1, Size(seconds=0.02, events=2_000, tenants=2, applications=3, fleet=5)),
}

_QUIET: Final = 0.5  # Load per core above which a run starts with a warning.

_DESCRIPTION: Final = """\
Measure this checkout's eventsourcing_sqlalchemy beside its peers and the limits of the database.
docs/performance.md describes the scenarios and how to read the results.
"""

_EPILOG: Final = """\
examples:
  make bench                                      everything; leave the machine idle meanwhile
  make bench QUICK=1                              everything, shortened, in at most 5 minutes on two cores
  make bench ARGS="--scenarios W1,R1 --rounds 3"  some scenarios; W2 means W2:10, W2:100 and W2:1000
  make bench DATABASE=postgresql://user@host/db   on your server, in new databases that are dropped afterwards
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line parser."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    form = result.add_mutually_exclusive_group()
    form.add_argument("--quick", action="store_true", help="short measurements, at most 3 rounds, 5 minutes")
    form.add_argument(
        "--smoke",
        action="store_true",
        help="check that the benchmarks work: run each scenario once and briefly, in existing environments only (ours: "
        "in this interpreter as a fallback); the figures are meaningless",
    )
    result.add_argument(
        "--scenarios",
        metavar="NAMES",
        type=_scenarios,
        default=list(SCENARIOS),
        help="comma-separated names, or their parts before a colon, such as W1,R2,sqlite",
    )
    result.add_argument("--without", metavar="NAMES", type=_scenarios, default=[], help="scenarios to skip")
    result.add_argument(
        "--database",
        metavar="URL",
        default="embedded",
        help="a PostgreSQL server with the right to create databases; 'embedded' (default) starts one with fsync on",
    )
    result.add_argument("--rounds", type=_positive(int), help="runs per contestant")
    result.add_argument(
        "--minutes",
        type=_positive(float),
        help="time budget: scenarios get fewer rounds, at least one, when it is exceeded",
    )
    result.add_argument("--seconds", type=_positive(float), help="duration of a measurement")
    result.add_argument("--events", type=_positive(int), help=f"events in the log that is read, at least {MIN_LOG}")
    result.add_argument("--tenants", type=_positive(int), help="applications whose tables T1 creates")
    result.add_argument(
        "--applications", type=_positive(int), help=f"applications that M1 constructs, at least {MIN_APPLICATIONS}"
    )
    result.add_argument("--fleet", type=_positive(int), help="applications in the scenario fleet")
    result.add_argument(
        "--output",
        metavar="PATH",
        type=Path,
        help="write PATH.md, .json and .svg (default: benchmarks/results/full, quick or smoke; custom for other "
        "amounts or scenarios)",
    )
    result.add_argument("--list", action="store_true", help="list the scenarios and their contestants")
    return result


def _scenarios(names: str) -> list[Scenario]:
    try:
        return find_scenarios([name for name in names.split(",") if name])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def convert(value: str) -> float:
        converted = kind(value)
        if not 0 < converted < float("inf"):
            raise argparse.ArgumentTypeError(f"{value} is not above 0")
        return converted

    convert.__name__ = "number"  # The name in argparse's messages.
    return convert


def main(arguments: Sequence[str]) -> int:
    """Run the benchmarks; return 1 if a contestant failed, because a comparison needs all of them."""
    began = time.monotonic()
    command_line = parser()
    options = command_line.parse_args(arguments)
    scenarios = [scenario for scenario in options.scenarios if scenario not in options.without]
    if options.list:
        for scenario in scenarios:
            names = ", ".join(contestant.name for contestant in scenario.contestants())
            sys.stdout.write(f"{scenario.name:<14}{scenario.title:<58}{names}\n")
        return 0
    name, form = _form(options, scenarios)
    if form.size.events < MIN_LOG or form.size.applications < MIN_APPLICATIONS:
        command_line.error(f"--events is at least {MIN_LOG}, --applications at least {MIN_APPLICATIONS}")
    console = Console(stderr=True)
    homes = [home for home in HOMES if any(c.home == home for s in scenarios for c in s.contestants())]
    try:
        pythons = dict(_pythons(homes, console, may_create=not options.smoke))
        until = None if form.minutes is None else began + 60 * form.minutes
        plan = Plan(scenarios=scenarios, rounds=form.rounds, size=form.size, pythons=pythons, until=until)
        with Databases(None if options.database == "embedded" else options.database) as databases:
            if any(scenario.database == "postgresql" for scenario in scenarios):
                databases.start_server()
            results = _run(plan, databases, name, console)
    except (EnvironmentFailedError, NoServerError) as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted: no results were written")
        return 130
    for path in report.write(results, options.output or RESULTS / name):
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    for scenario, contestant, reason in results.failures():
        console.print(
            f"failed: {scenario.name}, {contestant.title}: {reason}", style="red", markup=False, soft_wrap=True
        )
    return int(bool(results.failures()))


def _form(options: argparse.Namespace, scenarios: Sequence[Scenario]) -> tuple[str, Form]:
    """Return the name of the results and the amount of work."""
    name = "smoke" if options.smoke else "quick" if options.quick else "full"
    form = FORMS[name]
    size = Size(**{key: getattr(options, key) or getattr(form.size, key) for key in Size.__slots__})
    chosen = Form(options.rounds or form.rounds, size, options.minutes or form.minutes)
    return (name if (chosen, list(scenarios)) == (form, list(SCENARIOS)) else "custom"), chosen


def _pythons(homes: Sequence[Home], console: Console, *, may_create: bool) -> Iterator[tuple[Home, Path]]:
    for home in homes:
        python = find_python(home)
        if python is None and may_create:
            console.print(f"Creating the environment of {home} (about a minute)")
            python = make_python(home)
        if python is None and home == "ours":
            python = Path(sys.executable)
        if python is not None:
            yield home, python


def _run(plan: Plan, databases: Databases, name: str, console: Console) -> Results:
    load = os.getloadavg()[0]
    if load > _QUIET * _cores():
        console.print(f"[yellow]The machine is busy (load {load:.1f}): the figures will not be reliable.[/]")
    results = Results(name, {"run": _facts_of_run(plan), "machine": _facts_of_machine()})
    began = time.monotonic()
    with _progress(console, plan.total) as (advance, doing), Rounds(plan, databases, doing=doing) as rounds:
        for scenario in plan.scenarios:
            for _ in rounds.run(scenario, results):
                advance()
            console.print(report.line(results, scenario), highlight=False, markup=False, soft_wrap=True)
        results.facts["databases"] = databases.describe()
    results.facts["run"]["took"] = f"{time.monotonic() - began:.0f} s"
    return results


@contextmanager
def _progress(console: Console, total: int) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task), lambda text: progress.update(task, description=text)


def _facts_of_run(plan: Plan) -> dict[str, str]:
    size = {key: str(getattr(plan.size, key)) for key in Size.__slots__}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"started": started, "commit": _commit(), "rounds": str(plan.rounds), **size}


def _facts_of_machine() -> dict[str, str]:
    return {
        "cores": str(_cores()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "load when it began": f"{os.getloadavg()[0]:.1f}",
    }


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    """Return the checkout's commit, and whether the package has uncommitted changes."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(CHECKOUT), *arguments]
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    return f"{commit} with changes" if git("status", "--porcelain", "--", "eventsourcing_sqlalchemy") else commit


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
