"""What a process makes of failures that another one has met before it."""

from __future__ import annotations

from eventsourcing_sqlalchemy.naming import TableName
from tenancy import Tenancy
from tenancy.runner.courses import Course, Courses
from tenancy.runner.failures import FailureBook
from tenancy.runner.leases import bucket_of
from tenancy.runner.pipes import Pipe, Pipes
from tenancy.runner.ready import ReadyQueue
from tenancy.runner.troubles import Troubles


def troubles(tenants: Tenancy) -> Troubles:
    courses = Courses(Pipes(tenants.blueprints()), lambda: None, bucket_of)
    return Troubles(FailureBook(tenants.registry), courses, ReadyQueue(1), max_attempts=2)


def test_follower_that_has_stopped_elsewhere_has_no_attempts_left(tenants: Tenancy) -> None:
    """It may get a turn here before this process has learned of it."""
    acme = tenants.create("acme")
    course = Course(acme, Pipe("Shop", "Follower"), TableName(None, "events"), TableName(None, "tracking"))
    first, second = troubles(tenants), troubles(tenants)
    for _ in range(2):
        first.met(ZeroDivisionError(), course, 1, ["Shop"])
    second.met(ZeroDivisionError(), course, 1, ["Shop"])
    failure = FailureBook(tenants.registry).get(course.key)
    assert failure is not None
    assert (failure.attempts, failure.is_quarantined) == (3, True)
    second.met(ZeroDivisionError(), course, 2, ["Shop"])  # of another event
    assert [each.attempts for each in FailureBook(tenants.registry).all().values()] == [1]
