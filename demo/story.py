"""The parts of the demo, in order."""

from uuid import UUID

from eventsourcing.system import SingleThreadedRunner

from demo.catalog import read_tables
from demo.databases import Database
from demo.environment import environment
from demo.observation import peak_of
from demo.runner import one_runner
from demo.school import School
from demo.screen import Screen
from demo.system import SYSTEM
from demo.tenants import lifecycle, three_tenants
from demo.verification import (
    by_application,
    check_closed,
    check_engine,
    check_following,
    check_isolation,
    check_placements,
)
from tenancy.tenancy import Tenancy

# Small, so that threads outnumber connections. Without overflow: its connections are short-lived, and the server would
# count one that was just closed together with its successor.
POOL_LIMIT = 6
POOL = {"SQLALCHEMY_POOL_SIZE": str(POOL_LIMIT), "SQLALCHEMY_MAX_OVERFLOW": "0"}

# The registry has a small pool of its own, so that it responds when the tenants exhaust theirs.
REGISTRY_LIMIT = 4

ONE_STEM = "{application}_v1"


def tell(database: Database, screen: Screen) -> None:
    """Run all parts; raises CheckFailedError at the first claim that is false."""
    screen.say(f"1/5  {database.headline}")
    if database.announcement:
        screen.say(f"       {database.announcement}")
    _one_process(database, screen)
    with environment({**database.fleet_environment, **POOL}), Tenancy(system=SYSTEM) as tenants:
        schools = three_tenants(tenants, database, screen, database.template(ONE_STEM), POOL_LIMIT + REGISTRY_LIMIT)
        one_runner(database, screen, schools)
        lifecycle(tenants, database, screen)
    check_closed(screen, database)


def _one_process(database: Database, screen: Screen) -> None:
    variables = database.environment(ONE_STEM)
    screen.say(f"2/5  One process, three applications, {database.placement_noun_plural} from the environment alone")
    screen.say(
        f"       PERSISTENCE_MODULE={variables['PERSISTENCE_MODULE']}   "
        f"{database.placement_variable}='{variables[database.placement_variable]}'"
    )
    screen.say(f"       {'   '.join(f'{name}={value}' for name, value in POOL.items())}")
    placement = database.template(ONE_STEM)
    with environment({**variables, **POOL}), SingleThreadedRunner[UUID](SYSTEM) as runner:
        schools = [School("", placement, runner, trainers_events=40, kennels_events=25)]
        with peak_of(database.connections) as peak:
            for work in schools[0].work:
                work()
        found = read_tables(database)
        tables = by_application([placement], found)
        screen.table(
            ("application", database.placement_noun, "tables", "events", "last id"),
            [
                (name, entry.name, " + ".join(entry.tables), len(entry.states), entry.last_id)
                for (_, name), entry in tables.items()
            ],
        )
        check_placements(screen, database, tables, found)
        check_engine(screen, schools, peak.value, POOL_LIMIT)
        check_isolation(screen, schools, tables)
        check_following(screen, schools, tables)
    check_closed(screen, database)
