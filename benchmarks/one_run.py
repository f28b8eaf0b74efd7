"""Run one scenario once for one contestant, and print the result."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Final

from benchmarks import catalog, following, limits, limits_sqlite, preparation, scenarios
from benchmarks.catalog import CONTESTANTS, SCENARIOS, Contestant, Scenario, Size
from benchmarks.measurement import WorkNotDoneError, require
from benchmarks.places import URL_VARIABLE, Place

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PREPARE: Final = "prepare-"

_DISTRIBUTIONS: Final = ("eventsourcing", "eventsourcing-sqlalchemy", "SQLAlchemy", "psycopg", "psycopg2-binary")


def run(contestant: Contestant, scenario: Scenario, url: str, size: Size) -> dict[str, Any]:
    """Run a scenario and return its result for JSON; raises WorkNotDoneError if verification fails."""
    check_identity(contestant)
    place = Place(contestant, url, scenario.threads)
    try:
        if contestant.kind == "limit":
            measure = limits.LIMITS[contestant.name, scenario.family]
        else:
            measure = scenarios.FAMILIES[scenario.family]
        result = measure(scenario, place, size)
    finally:
        place.close()
    require(result.work > 0, "No work was done.")
    return {
        "contestant": contestant.name,
        "scenario": scenario.name,
        "value": result.value(rate=scenario.more_is_better),
        "unit": scenario.unit,
        "work": result.work,
        "seconds": result.seconds,
        "calls": len(result.latencies),
        "p50_ms": result.quantile(0.5),
        "p99_ms": result.quantile(0.99),
        "extra": result.extra,
        "note": result.note,
        "versions": versions(),
    }


def prepare(contestant: Contestant, kind: catalog.Preparation, url: str, size: Size) -> dict[str, Any]:
    """Fill a database that many runs read; return the amount of data."""
    check_identity(contestant)
    place = Place(contestant, url)
    try:
        if contestant.name == "sqlite3":
            limits_sqlite.make_log(place, size)
            return {"prepared": size.events}
        return {"prepared": preparation.prepare(kind, place, size)}
    finally:
        place.close()


def check_identity(contestant: Contestant) -> None:
    """Raise WorkNotDoneError unless the imported package is the contestant's: both have the same name."""
    if contestant.home == "native" or contestant.kind == "limit":
        return
    origin = Path(str(import_module("eventsourcing_sqlalchemy").__file__)).resolve()
    is_checkout = origin.is_relative_to(CHECKOUT / "eventsourcing_sqlalchemy")
    require(
        is_checkout == (contestant.home == "ours"), f"{contestant.name} imports the wrong package: {origin.parent}."
    )
    if contestant.home == "upstream":
        version = metadata.version("eventsourcing-sqlalchemy")
        require(version == catalog.UPSTREAM_VERSION, f"upstream is {version}, not {catalog.UPSTREAM_VERSION}.")


def versions() -> dict[str, str]:
    """Return the versions of the involved packages; the report names the checkout's commit."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the command, print one line of JSON and return the exit status."""
    parser = argparse.ArgumentParser(prog="worker.py", description=__doc__)
    parser.add_argument("contestant", choices=CONTESTANTS)
    parser.add_argument("scenario", help=f"a scenario, or {PREPARE}log, -applications, -fleet")
    parser.add_argument("--seconds", type=float, default=1.0)
    for name, default in (("events", 20_000), ("tenants", 100), ("applications", 20), ("fleet", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    contestant = CONTESTANTS[options.contestant]
    size = Size(**{name: getattr(options, name) for name in Size.__slots__})
    url = os.environ.get(URL_VARIABLE, "")
    try:
        if options.scenario == following.WRITE_WHEN_ASKED:
            check_identity(contestant)
            following.write_when_asked(Place(contestant, url))
            return 0
        if options.scenario.startswith(PREPARE):
            result = prepare(contestant, options.scenario.removeprefix(PREPARE), url, size)
        else:
            scenario = next((s for s in SCENARIOS if s.name == options.scenario), None)
            if scenario is None:
                parser.error(f"unknown scenario {options.scenario!r}")
            result = run(contestant, scenario, url, size)
    except WorkNotDoneError as error:
        result = {"error": f"The work was not done: {error}"}
    sys.stdout.write(f"{json.dumps(result)}\n")
    sys.stdout.flush()
    return int("error" in result)
