"""Fleets for the runner tests, and checks of their followers' results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from tenancy import Tenancy
from tenancy.errors import NotCaughtUp
from tenancy.runner.runner import Runner
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import SYSTEM, Diaries, Summaries
from tests.samples.training_school.totals import CountAll, Totals
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.deadlines import DEADLINE_SECONDS


@contextmanager
def fleet(url: str, slugs: Iterable[str] = (), **settings: object) -> Iterator[Tenancy]:
    """Yield a fleet of tenants with the training school's system and projection."""
    env = {"SQLALCHEMY_URL": url, **{key.upper(): str(value) for key, value in settings.items()}}
    with Tenancy(system=SYSTEM, env=env) as tenants:
        tenants.project(TrainingSchool, DogCounters, CountersView)
        for _ in tenants.create_many(slugs, exist_ok=True):
            pass
        yield tenants


ACROSS_APP = "tests.support.fleets:command_fleet_across"


def command_fleet_across() -> Tenancy:
    """Return a fleet of the commands, with a projection over all tenants and one for each."""
    tenants = Tenancy(applications=[TrainingSchool])
    tenants.project(TrainingSchool, DogCounters, CountersView)
    tenants.project_across(TrainingSchool, CountAll, Totals)
    return tenants


@contextmanager
def fleet_across(url: str, slugs: Iterable[str] = ()) -> Iterator[Tenancy]:
    """Yield a fleet as :func:`fleet` does, with a projection over all tenants."""
    with fleet(url) as tenants:
        tenants.project_across(TrainingSchool, CountAll, Totals)
        for _ in tenants.create_many(slugs, exist_ok=True):
            pass
        yield tenants


def positions(tenants: Tenancy) -> int:
    """Return the sum of the followers' recorded positions, which grows while they make progress."""
    return sum(each.position for each in tenants.followers.status())


def catch_up(tenants: Tenancy, runner: Runner, slug: str) -> None:
    """Wait for a tenant's followers, as long as any follower of the fleet makes progress."""
    before = None
    while True:
        try:
            runner.wait(slug, DEADLINE_SECONDS)
        except NotCaughtUp:
            now = positions(tenants)
            if now == before:
                raise
            before = now
        else:
            return


def check(tenants: Tenancy, slug: str, expected: dict[UUID, list[str]]) -> None:
    """Check that a tenant's followers have processed these entries once, in each dog's order."""
    tenant = tenants[slug]
    tricks = sum(len(entries) - 1 for entries in expected.values())
    diaries = tenant.get(Diaries)
    assert {dog_id: diaries.entries(dog_id) for dog_id in expected} == expected, slug
    assert tenant.get(Summaries).count() == tricks, slug
    view = tenants.projection(DogCounters, slug).view
    assert (view.get_created_event_counter(), view.get_subsequent_event_counter()) == (len(expected), tricks), slug


def recorded_events(application: Any) -> list[tuple[Any, ...]]:
    """Return an application's recorded events without their timestamps."""
    found = []
    for notification in application.recorder.select_notifications(start=None, limit=100_000):
        domain_event = application.mapper.to_domain_event(notification)
        values = {key: value for key, value in vars(domain_event).items() if key != "timestamp"}
        found.append((notification.originator_id, notification.originator_version, notification.topic, values))
    return found
