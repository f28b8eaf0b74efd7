"""The runner beside those of the library: the same system for many tenants, each measured in a process of its own.

    python -m benchmarks.runners                       1, 10 and 50 tenants, all runners
    python -m benchmarks.runners --alone 100,1000      the runner of this project alone

Every tenant has three applications: one is written to, one makes an event of each of its events, and one does so with
those. `backlog` is how fast events are followed that were there before; `live` how fast when two threads write
meanwhile, writing included; `lag` how long one event of an otherwise idle tenant takes through both followers.

The library's runners are measured twice: on this project's tables, and, as `native`, on those of the library itself.
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
"""Fifty tenants of the library's runners on its own persistence have a pool for each of 150 applications."""
COLUMNS = ("runner", "tenants", "backlog", "live", "lag_ms", "threads", "connections", "megabytes")


class Case(NamedTuple):
    """One runner with some tenants."""

    kind: str
    tenants: int
    workers: int = 0
    is_native: bool = False


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Yield what is to be measured, in its order."""
    for tenants in arguments.tenants:
        yield from (Case(OURS, tenants, workers) for workers in arguments.workers)
        yield from (Case(kind, tenants) for kind in LIBRARY)
        if not arguments.no_native:
            yield from (Case(kind, tenants, is_native=True) for kind in LIBRARY)
    for tenants in arguments.alone:
        yield from (Case(OURS, tenants, workers) for workers in arguments.workers)


def run(case: Case, events: int, url: str) -> str:
    """Return a line of the table."""
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
    """Measure what was asked for, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runners", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tenants", type=_numbers, default=[1, 10, 50], metavar="N,...")
    parser.add_argument("--alone", type=_numbers, default=[], metavar="N,...")
    parser.add_argument("--workers", type=_numbers, default=[4, 16], metavar="N,...")
    parser.add_argument("--events", type=int, default=EVENTS, metavar="N", help="of all tenants together (%(default)s)")
    parser.add_argument("--no-native", action="store_true", help="without the library's own persistence")
    chosen = parser.parse_args(arguments)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for case in cases(chosen):
        server = find_postgres(max_connections=MAX_CONNECTIONS)
        if server is None:
            sys.exit("There is no PostgreSQL to start.")
        with server:
            print(run(case, chosen.events, server.url()), flush=True)


if __name__ == "__main__":
    main()
