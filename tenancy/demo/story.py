"""The parts of the demo, in the order in which they are told."""

import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from uuid import UUID

from eventsourcing.system import MultiThreadedRunner, SingleThreadedRunner

from tenancy.demo.catalog import read_places
from tenancy.demo.databases import Database
from tenancy.demo.environment import environment
from tenancy.demo.observation import peak_of
from tenancy.demo.school import School
from tenancy.demo.screen import Screen
from tenancy.demo.system import APPLICATIONS, SYSTEM, Reports
from tenancy.demo.verification import (
    Places,
    by_application,
    check_closed,
    check_engine,
    check_following,
    check_isolation,
    check_places,
    lag,
)

# Small, so that there are more threads than connections. Without overflow: those connections come and go, and the
# server counts one that has just been closed together with its successor.
POOL_LIMIT = 6
POOL = {"SQLALCHEMY_POOL_SIZE": str(POOL_LIMIT), "SQLALCHEMY_MAX_OVERFLOW": "0"}

ONE_STEM = "{application}_v1"
TENANTS = {"acme": (60, 40), "globex": (45, 30), "Ünï-cödé x": (30, 20)}
"""How many events Trainers and Kennels record, by the tenant's name."""


def tell(database: Database, screen: Screen) -> None:
    """Tell all parts; raises CheckFailedError at the first claim that does not hold."""
    screen.say(f"1/3  {database.headline}")
    if database.announcement:
        screen.say(f"       {database.announcement}")
    _one_process(database, screen)
    _three_tenants(database, screen)


def _one_process(database: Database, screen: Screen) -> None:
    variables = database.environment(ONE_STEM)
    screen.say(f"2/3  One process, three applications, {database.places} from the environment alone")
    screen.say(
        f"       PERSISTENCE_MODULE={variables['PERSISTENCE_MODULE']}   "
        f"{database.place_variable}='{variables[database.place_variable]}'"
    )
    screen.say(f"       {'   '.join(f'{name}={value}' for name, value in POOL.items())}")
    with environment({**variables, **POOL}), SingleThreadedRunner[UUID](SYSTEM) as runner:
        schools = [School("", ONE_STEM, runner, trainers_events=40, kennels_events=25)]
        with peak_of(database.connections) as peak:
            for work in schools[0].work:
                work()
            schools[0].catch_up()
        found = read_places(database)
        places = by_application(database, [ONE_STEM], found)
        screen.table(
            ("application", database.place, "tables", "events", "last id"),
            [
                (name, place.name, " + ".join(place.tables), len(place.states), place.last_id)
                for (_, name), place in places.items()
            ],
        )
        check_places(screen, database, places, found)
        check_engine(screen, schools, peak.value, POOL_LIMIT)
        check_isolation(screen, schools, places)
        check_following(screen, schools, places)
    check_closed(screen, database)


def _three_tenants(database: Database, screen: Screen) -> None:
    screen.say(
        "3/3  The same system for three tenants at once, each with a MultiThreadedRunner and two writing threads"
    )
    stems = {tenant: f"{slug(tenant)}_{{application}}" for tenant in TENANTS}
    screen.say(
        f"       {database.place_variable}={', '.join(repr(database.template(stem)) for stem in stems.values())}"
    )
    with environment(POOL), ExitStack() as running:
        schools = []
        for tenant, (trainers_events, kennels_events) in TENANTS.items():
            stem = stems[tenant]
            runner = running.enter_context(MultiThreadedRunner[UUID](SYSTEM, env=database.environment(stem)))
            schools.append(School(tenant, stem, runner, trainers_events, kennels_events))
        with peak_of(database.connections) as peak:
            works = [work for school in schools for work in school.work]
            with ThreadPoolExecutor(len(works), "demo-writer") as threads:
                done = [threads.submit(work) for work in works]
            for future in done:
                future.result()
            for school in schools:
                school.catch_up()
        found = read_places(database)
        places = by_application(database, [ONE_STEM, *stems.values()], found)
        screen.table(
            ("tenant", "application", database.place, "events", "last id", "follower lag"),
            [_row(school, cls.name, places) for school in schools for cls in APPLICATIONS],
        )
        check_places(screen, database, places, found)
        check_engine(screen, schools, peak.value, POOL_LIMIT)
        check_isolation(screen, schools, places)
        check_following(screen, schools, places)
    check_closed(screen, database)


def _row(school: School, application: str, places: Places) -> tuple[object, ...]:
    place = places[school.stem, application]
    behind = lag(school, places) if application == Reports.name else ""
    return (school.tenant, application, place.name, len(place.states), place.last_id, behind)


def slug(name: str) -> str:
    """Return a name that is easy to type everywhere, made of a tenant's."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", ascii_name.lower()).strip("_")
