"""The demo's parts about tenants: three side by side, then the lifecycle of one."""

import shlex
import subprocess
import time
from dataclasses import replace

from demo.catalog import read_tables
from demo.databases import Database
from demo.observation import peak_of, together
from demo.process import command
from demo.school import School
from demo.screen import Screen
from demo.system import APPLICATIONS, Trainers
from demo.traffic import THREADS, mixed_calls
from demo.verification import (
    by_application,
    check_engine,
    check_following,
    check_isolation,
    check_placements,
    lag,
)
from tenancy.errors import TenancyError, TenantPurged, TenantSuspended
from tenancy.tenancy import Tenancy

TENANTS = {"acme": (60, 40), "globex": (45, 30), "Ünï-cödé x": (30, 20)}
"""The number of events that Trainers and Kennels record, by tenant name."""

CALLS = 12_000
CATCH_UP_SECONDS = 20.0
REFUSAL_SECONDS = 5.0


def three_tenants(
    tenants: Tenancy, database: Database, screen: Screen, one_process: str, pool_limit: int
) -> list[School]:
    """Create tenants, run their work concurrently, and check that no data is misplaced.

    ``one_process`` names the placement of the previous part. Returns the tenants' schools, with their event counts.
    """
    screen.say("3/5  The same system for three tenants: Tenancy(system=SYSTEM)")
    begin = time.monotonic()
    created = list(tenants.create_many(TENANTS))
    seconds = time.monotonic() - begin
    screen.say(f"       $ tenancy create {shlex.join(TENANTS)}")
    screen.check(
        [tenant.name for tenant in created if tenant.status == "active"] == list(TENANTS),
        f"{len(created)} created in {seconds * 1000:.0f} ms, with {len(APPLICATIONS)} applications each",
        f"{[(tenant.name, str(tenant.status)) for tenant in created]} were created",
    )
    schools = [School(tenant.name, str(tenant.placement), tenant, *TENANTS[tenant.name]) for tenant in created]
    with peak_of(database.connections) as peak, tenants.runner(workers=4) as runner:
        together([work for school in schools for work in school.work])
        for tenant in created:
            runner.wait(tenant.slug, timeout=CATCH_UP_SECONDS)
    found = read_tables(database)
    templates = [one_process, *(school.placement for school in schools)]
    tables = by_application(templates, found)
    screen.table(
        ("tenant", "status", database.placement_noun, "events", "follower lag"),
        [
            (
                tenant.name,
                str(tenant.status),
                school.placement,
                sum(len(tables[school.placement, cls.name].states) for cls in APPLICATIONS),
                lag(school, tables),
            )
            for tenant, school in zip(created, schools, strict=True)
        ],
    )
    check_placements(screen, database, tables, found)
    check_engine(screen, schools, peak.value, pool_limit)
    check_following(screen, schools, tables)
    counts = mixed_calls(tenants, [tenant.slug for tenant in created], CALLS)
    screen.check(
        counts["right"] == CALLS and not counts["wrong"],
        f"{CALLS:,} mixed calls from {THREADS} threads: 0 answers of another tenant",
        f"{counts['wrong']:,} of {CALLS:,} answers were another tenant's",
    )
    check_isolation(screen, schools, by_application(templates, read_tables(database)))
    return [
        replace(school, kennels_events=school.kennels_events + counts[tenant.slug])
        for tenant, school in zip(created, schools, strict=True)
    ]


def lifecycle(tenants: Tenancy, database: Database, screen: Screen) -> None:
    """Suspend a tenant, purge it and create it again, each with a command in its own process."""
    screen.say("5/5  The lifecycle of a tenant")
    before = tenants["globex"]
    handed_out = before.get(Trainers)
    _run(screen, "suspend", "globex", "--reason", "invoice 4711")
    seconds = _until_refused(handed_out, TenantSuspended)
    screen.check(
        seconds is not None,
        f"an object handed out before raises TenantSuspended after {seconds or 0:.1f} s, in this process",
        f"an object handed out before still records after {REFUSAL_SECONDS:.0f} s",
    )
    _run(screen, "purge", "globex", "--yes")
    left = [f"{schema}{name}" for schema, name in database.tables() if str(before.placement) in f"{schema}{name}"]
    known = [tenant.slug for tenant in tenants if tenant.slug == "globex"]
    refused = _until_refused(handed_out, TenantPurged) is not None
    screen.check(
        not left and not known and refused,
        "0 schemas, tables, sequences and fields of the registry left; the object raises TenantPurged",
        f"left: tables {left}, tenants {known}; the object is {'refused' if refused else 'not refused'}",
    )
    _run(screen, "create", "globex")
    again = tenants["globex"]
    events = again.get(Trainers).recorder.max_notification_id() or 0
    screen.check(
        again.id != before.id and again.placement != before.placement and events == 0,
        f"a new tenant in {again.placement}, which inherits nothing",
        f"the new tenant in {again.placement} has {events} events; the old one was in {before.placement}",
    )


def _run(screen: Screen, *words: str) -> None:
    screen.say(f"       $ tenancy {shlex.join(words)}")
    result = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    screen.check(
        result.returncode == 0,
        result.stdout.strip().rpartition("\n")[2],
        f"exit code {result.returncode}: {result.stderr.strip()}",
    )


def _until_refused(trainers: Trainers, error: type[TenancyError]) -> float | None:
    """Record until it is refused, and return the seconds that took; None if it is never refused."""
    begin = time.monotonic()
    while (seconds := time.monotonic() - begin) < REFUSAL_SECONDS:
        try:
            trainers.hire("Ana of globex")
        except error:
            return seconds
        time.sleep(0.01)
    return None
