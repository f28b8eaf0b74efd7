"""Scenarios and contestants. Imports only the standard library, to work in every virtual environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Database = Literal["postgresql", "sqlite"]
Kind = Literal["ours", "peer", "limit"]
Home = Literal["ours", "upstream", "native"]
"""A virtual environment; see `environments`."""
Preparation = Literal["log", "applications", "fleet"]
"""A database that is filled once per contestant and shared by all rounds: a long log, some applications with tables, or
very many.
"""

UPSTREAM_VERSION: Final = "1.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A subject of scenarios: ours, a peer, or a limit, which uses no recorder."""

    name: str
    title: str
    kind: Kind
    home: Home
    driver: str = "psycopg2"
    """The PostgreSQL driver."""


OURS: Final = (
    Contestant(name="ours-psycopg2", title="ours, psycopg2", kind="ours", home="ours"),
    Contestant(name="ours-psycopg", title="ours, psycopg", kind="ours", home="ours", driver="psycopg"),
)
OURS_SQLITE: Final = Contestant(name="ours-sqlite", title="ours", kind="ours", home="ours")
UPSTREAM: Final = Contestant(name="upstream", title=f"upstream {UPSTREAM_VERSION}", kind="peer", home="upstream")
NATIVE: Final = Contestant(name="native", title="native", kind="peer", home="native", driver="psycopg")
PEERS: Final = (UPSTREAM, NATIVE)
LIMITS: Final = (
    Contestant(name="pgbench", title="pgbench, same statement", kind="limit", home="ours", driver="psycopg"),
    Contestant(name="copy", title="COPY", kind="limit", home="ours", driver="psycopg"),
    Contestant(name="inserts", title="unordered inserts", kind="limit", home="ours", driver="psycopg"),
    Contestant(name="libpq", title="libpq, rows unread", kind="limit", home="ours", driver="psycopg"),
    Contestant(name="memory", title="no database", kind="limit", home="ours", driver="psycopg"),
    Contestant(name="sqlite3", title="raw sqlite3", kind="limit", home="ours"),
)
CONTESTANTS: Final = {contestant.name: contestant for contestant in (*PEERS, *OURS, OURS_SQLITE, *LIMITS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A kind of work. A `unit` with a slash is a rate (more is better), any other a duration (less is better)."""

    name: str
    title: str
    unit: str = "events/s"
    threads: int = 1
    needs: Preparation | None = None
    limit: str | None = None
    """The contestant that is the scenario's limit."""
    keeps_databases: bool = False
    """Whether to keep databases until the last round: on some file systems, creating files is much slower right after
    deleting others.
    """
    only_ours: bool = False
    measured_by: str | None = None
    """The scenario to compare with, if no peer can run this one."""

    @property
    def database(self) -> Database:
        """The database of the scenario."""
        return "sqlite" if self.name.startswith("sqlite:") else "postgresql"

    @property
    def family(self) -> str:
        """The name without database and number, such as `W2`."""
        return self.name.removeprefix("sqlite:").partition(":")[0]

    @property
    def number(self) -> int:
        """The number at the end of the name, or 1."""
        number = self.name.rpartition(":")[2]
        return int(number) if number.isdecimal() else 1

    @property
    def more_is_better(self) -> bool:
        """Whether it is a rate."""
        return "/" in self.unit

    def contestants(self) -> list[Contestant]:
        """Return the contestants, in report order."""
        ours = OURS if self.database == "postgresql" else (OURS_SQLITE,)
        limit = () if self.limit is None else (CONTESTANTS[self.limit],)
        return [*(() if self.only_ours else PEERS), *ours, *limit]


def _reading(prefix: str, numbers: Sequence[int], limit: str) -> list[Scenario]:
    aggregates = [
        Scenario(name=f"{prefix}R1:{n}", title=f"read an aggregate of {n} events", needs="log", limit=limit)
        for n in numbers
    ]
    pages = [
        Scenario(name=f"{prefix}R2:{n}", title=f"read the log in pages of {n}", needs="log", limit=limit)
        for n in numbers
    ]
    return aggregates + pages


SCENARIOS: Final = (
    Scenario(name="W1", title="append 1 event per call", limit="pgbench"),
    *(Scenario(name=f"W2:{n}", title=f"append {n} events per call", limit="copy") for n in (10, 100, 1000)),
    *(
        Scenario(name=f"W3:{n}", title=f"{n} threads append to one application", threads=n, limit="inserts")
        for n in (8, 32)
    ),
    Scenario(name="W4:16", title="16 applications, a thread each", threads=16, limit="inserts"),
    Scenario(name="P1", title="append an event with its tracking position"),
    Scenario(name="W5", title="whole application: register, add, get", unit="cycles/s", limit="memory"),
    *_reading("", (10, 100, 1000), "libpq"),
    Scenario(name="R3", title="from insert to receipt in another process", unit="ms"),
    Scenario(name="R3c", title="a subscription catches up", needs="log"),
    Scenario(name="T1", title="create the 3 tables of each of many applications", unit="ms", keeps_databases=True),
    Scenario(name="T1:1", title="the same by constructing each application", unit="ms", keeps_databases=True),
    Scenario(name="T1:4", title="the same by 4 threads", unit="ms", threads=4, keeps_databases=True),
    Scenario(
        name="M1", title="construct an application whose tables exist", unit="ms", needs="applications", limit="memory"
    ),
    Scenario(
        name="fleet",
        title="many applications, one engine, 16 threads append and read",
        unit="calls/s",
        threads=16,
        needs="fleet",
        only_ours=True,
        measured_by="W4:16",
    ),
    Scenario(name="sqlite:W1", title="append 1 event per call", limit="sqlite3"),
    Scenario(name="sqlite:W3:8", title="8 threads append to one application", threads=8),
    *_reading("sqlite:", (100,), "sqlite3"),
)


def find_scenarios(patterns: Sequence[str]) -> list[Scenario]:
    """Return the scenarios whose name is a pattern or continues one after a colon, in catalog order.

    Raises ValueError for a pattern without a match.
    """
    found = {p: [s for s in SCENARIOS if s.name == p or s.name.startswith(f"{p}:")] for p in patterns}
    for pattern, matches in found.items():
        if not matches:
            names = ", ".join(scenario.name for scenario in SCENARIOS)
            raise ValueError(f"Unknown scenario {pattern!r}. Use one of: {names}.")
    chosen = {scenario.name for matches in found.values() for scenario in matches}
    return [scenario for scenario in SCENARIOS if scenario.name in chosen]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The amount of work of a run."""

    seconds: float
    """Duration of each measurement without a fixed amount of work."""
    events: int
    """Events in the log that is read."""
    tenants: int
    """Applications whose tables T1 creates."""
    applications: int
    """Applications that M1 constructs and keeps open."""
    fleet: int
    """Applications in the scenario `fleet`."""
