"""The demo's claims about running systems: each is verified in the database or by trying it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate
from eventsourcing.utils import get_topic

from demo.catalog import ApplicationTables
from demo.databases import Database
from demo.observation import settled
from demo.school import School
from demo.screen import Screen
from demo.system import APPLICATIONS, Kennel, Kennels, Report, Reports, Trainer, Trainers
from eventsourcing_sqlalchemy import SQLAlchemyFactory

AGGREGATES = {Trainers.name: Trainer, Kennels.name: Kennel, Reports.name: Report}
EVERYTHING = 1_000_000

TablesByApplication = Mapping[tuple[str, str], ApplicationTables]
"""The tables by (name of the school's placements, name of the application)."""


def by_application(templates: Sequence[str], found: Sequence[ApplicationTables]) -> TablesByApplication:
    """Return each application's tables under their expected placement; none if the catalog lacks them."""
    listed = {(entry.name, entry.application): entry for entry in found}
    tables = {}
    for template in templates:
        for cls in APPLICATIONS:
            application = cls.name.lower()
            name = template.replace("{application}", application)
            tables[template, cls.name] = listed.get((name, application)) or ApplicationTables(name, application)
    return tables


def check_placements(
    screen: Screen, database: Database, tables: TablesByApplication, found: Sequence[ApplicationTables]
) -> None:
    """Check that the catalog lists each application's placement, and no other."""
    missing = [entry.name for entry in tables.values() if not entry.tables]
    strange = [entry.name for entry in found if entry not in tables.values()]
    screen.check(
        not missing and not strange,
        f"every application in its own {database.placement_noun}: "
        f"{len(found)} of {len(tables)} in the catalog, no other",
        f"{database.placement_noun_plural} that the catalog lacks: {missing}; that only the catalog has: {strange}",
    )


def check_engine(screen: Screen, schools: Sequence[School], peak: int, limit: int) -> None:
    """Check that all applications share one engine, which stays within its pool limit and holds no connection."""
    pools: dict[int, Any] = {id(pool): pool for pool in map(_pool, _applications(schools))}
    held = settled(lambda: sum(pool.checkedout() for pool in pools.values()))
    screen.check(
        len(pools) == 1 and 1 <= peak <= limit and held == 0,
        f"1 engine · connections: {peak} at peak (at most {limit}), 0 held at rest",
        f"{len(pools)} engines · connections: {peak} at peak (at most {limit}), {held} held at rest",
    )


def check_closed(screen: Screen, database: Database) -> None:
    """Check that closed applications leave no connection."""
    left = settled(database.connections)
    screen.check(left == 0, "0 connections after the applications were closed", f"{left} connections after closing")


def check_isolation(screen: Screen, schools: Sequence[School], tables: TablesByApplication) -> None:
    """Check that an application can read its own aggregates only, and that its table holds nothing else."""
    own = {app: _aggregate_ids(app) for app in _applications(schools)}
    unreadable = [app.name for app, ids in own.items() for each in ids if not _can_read(app, each)]
    tried = [(reader, each) for app, ids in own.items() for each in ids for reader in own if reader is not app]
    leaks = [reader.name for reader, each in tried if _can_read(reader, each)]
    screen.check(
        bool(tried) and not leaks and not unreadable,
        f"{len(tried):,} reads of another application's aggregate: AggregateNotFoundError, every one",
        f"{len(leaks)} of {len(tried)} reads of another application's aggregate gave it {leaks[:1]}, "
        f"{len(unreadable)} of an own one did not {unreadable[:1]}",
    )
    strange = [line for school in schools for line in _strange_events(school, schools, tables)]
    total = sum(len(tables[school.placement, cls.name].states) for school in schools for cls in APPLICATIONS)
    whose = "tenant and application" if len(schools) > 1 else "application"
    screen.check(
        total > 0 and not strange,
        f"{total:,} events in the tables, each in that of its own {whose}",
        f"{len(strange)} of {total} events are in the wrong table: {strange[:1]}",
    )


def check_following(screen: Screen, schools: Sequence[School], tables: TablesByApplication) -> None:
    """Check that Reports recorded exactly one event for each event that it follows."""
    faults = []
    recorded = 0
    for school in schools:
        trainers, kennels, reports = (len(tables[school.placement, cls.name].states) for cls in APPLICATIONS)
        recorded += school.trainers_events + school.kennels_events
        if (trainers, kennels) != (school.trainers_events, school.kennels_events) or reports != trainers + kennels:
            faults.append(
                f"{school.trainers_events} + {school.kennels_events} events were recorded, "
                f"the tables hold {trainers} + {kennels}, and {reports} in Reports"
            )
        if behind := lag(school, tables):
            faults.append(f"Reports is {behind} behind")
        lines = school.get(Reports).lines
        for leader in (school.get(Trainers), school.get(Kennels)):
            for each in _aggregate_ids(leader):
                aggregate: Aggregate = leader.repository.get(each)
                if aggregate.version != (written := len(lines(each))):
                    faults.append(f"{written} lines report on {aggregate.version} events of {leader.name}")
    screen.check(
        not faults,
        f"{recorded:,} events recorded, {recorded:,} followed: 0 lost, 0 twice, lag 0",
        f"not followed exactly once: {'; '.join(faults[:2])}",
    )


def lag(school: School, tables: TablesByApplication) -> int:
    """Return the number of notifications that Reports has not processed, from the tables."""
    positions = tables[school.placement, Reports.name].positions
    return sum(tables[school.placement, cls.name].last_id - positions.get(cls.name, 0) for cls in (Trainers, Kennels))


def _applications(schools: Sequence[School]) -> Sequence[Application[Any]]:
    return [application for school in schools for application in school.applications]


def _pool(application: Application[Any]) -> object:
    return cast("SQLAlchemyFactory", application.factory).datastore.engine.pool


def _aggregate_ids(application: Application[Any]) -> set[UUID]:
    notifications = application.recorder.select_notifications(None, EVERYTHING)
    return {cast("UUID", notification.originator_id) for notification in notifications}


def _can_read(application: Application[Any], aggregate_id: UUID) -> bool:
    try:
        application.repository.get(aggregate_id)
    except AggregateNotFoundError:
        return False
    return True


def _strange_events(school: School, schools: Sequence[School], tables: TablesByApplication) -> Iterator[str]:
    """Yield a description of each event that belongs to another application or tenant."""
    others = [other.tenant for other in schools if other is not school]
    for cls in APPLICATIONS:
        entry = tables[school.placement, cls.name]
        own = f"{get_topic(AGGREGATES[cls.name])}."
        for topic, state in zip(entry.topics, entry.states, strict=True):
            text = state.decode()
            if not topic.startswith(own) or school.tenant not in text or any(other in text for other in others):
                yield f"{topic} in {entry.name}"
