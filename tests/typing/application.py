"""An application as users write it. Type checkers read it and nothing runs it: `make lint`.

It holds what must stay typed: applications, a projection with a view, middleware with composed resolvers, a runner,
an operation over many tenants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, DomainEventProtocol, event
from eventsourcing.persistence import Tracking
from eventsourcing.projection import Projection
from eventsourcing.system import ProcessApplication, System
from eventsourcing.utils import get_topic
from fastapi import FastAPI
from flask import Flask

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import Domain, PurgeCertificate, Tenancy, Tenant, TenantStatus
from tenancy.errors import TenancyError, TenantNotFound, TenantSuspended, TenantUnavailable
from tenancy.frameworks.fastapi import CurrentTenant, TenantApplication
from tenancy.frameworks.fastapi import install as install_fastapi
from tenancy.frameworks.flask import install as install_flask
from tenancy.operations.jobs import JobItem, JobKind, JobOptions, JobReport, PlannedItem, TenantSelection
from tenancy.runner import Runner
from tenancy.web.accept import prefers_html
from tenancy.web.asgi import ASGIMiddleware
from tenancy.web.resolvers import Request, Resolver, by_domain, by_header, by_host, by_path, first
from tenancy.web.responses import ErrorPages, ErrorResponse, redirect
from tenancy.web.wsgi import WSGIMiddleware


class Dog(Aggregate):
    """An aggregate whose events are classes, which type checkers know."""

    class Enrolled(Aggregate.Created):
        """The first event."""

        name: str

    class TrickLearned(Aggregate.Event):
        """Every other event."""

        trick: str

    @event(Enrolled)
    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @event(TrickLearned)
    def learn(self, trick: str) -> None:
        """Add a trick."""
        self.tricks.append(trick)


class School(Application[UUID]):
    """The application that records."""

    def enrol(self, name: str) -> UUID:
        """Record a new dog and return its id."""
        dog = Dog(name)
        self.save(dog)
        return dog.id

    def teach(self, dog_id: UUID, trick: str) -> None:
        """Record a trick."""
        dog: Dog = self.repository.get(dog_id)
        dog.learn(trick)
        self.save(dog)


class Diplomas(ProcessApplication[UUID]):
    """The application that follows."""

    @singledispatchmethod
    def policy(self, domain_event: DomainEventProtocol[UUID], processing_event: ProcessingEvent[UUID]) -> None:
        """React to an event of the school."""

    @policy.register
    def _(self, domain_event: Dog.Enrolled, processing_event: ProcessingEvent[UUID]) -> None:
        processing_event.collect_events(Dog(domain_event.name))


class TrickCounts(SQLAlchemyTrackingRecorder):
    """A view with a table of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counts = self.own_table(
            "counts", sa.Column("trick", sa.Text, primary_key=True), sa.Column("dogs", sa.Integer, nullable=False)
        )

    def create_table(self) -> None:
        """Create the table beside that of the positions."""
        super().create_table()
        self.counts.create(self.datastore.engine, checkfirst=True)

    def count(self, trick: str, tracking: Tracking) -> None:
        """Count a dog and record the position, in one transaction."""
        with self.transaction() as session:
            self._insert_tracking(session, tracking)
            session.execute(sa.insert(self.counts).values(trick=trick, dogs=1))

    def dogs_that_know(self, trick: str) -> int:
        """Return a count."""
        with self.transaction(commit=False) as session:
            found: int | None = session.scalar(sa.select(self.counts.c.dogs).where(self.counts.c.trick == trick))
        return found or 0


class CountTricks(Projection[TrickCounts]):
    """The projection that fills the view."""

    topics = (get_topic(Dog.TrickLearned),)

    @singledispatchmethod
    def process_event(self, domain_event: DomainEventProtocol[UUID], tracking: Tracking) -> None:
        """Process an event of the school."""

    @process_event.register
    def _(self, domain_event: Dog.TrickLearned, tracking: Tracking) -> None:
        self.view.count(domain_event.trick, tracking)


tenants = Tenancy(system=System(pipes=[[School, Diplomas]]), env={"SQLALCHEMY_URL": "sqlite:///fleet.db"})
tenants.project(School, CountTricks, TrickCounts)


def by_token(request: Request) -> Tenant | None:
    """Resolve a request in another way."""
    return None if request.tenants is None else request.tenants["acme"]


of_the_request: Resolver = first(by_header("X-Tenant"), by_host("example.com"), by_domain(), by_token)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing."""


def wsgi(environ: dict[str, Any], start_response: Any) -> Sequence[bytes]:
    """Answer with the number of events."""
    start_response("200 OK", [("X-Tenant", environ["HTTP_HOST"])])
    school = assert_type(tenants.application(School), School)
    return [str(school.recorder.max_notification_id()).encode()]


def to_billing(error: TenancyError, request: Request) -> ErrorResponse | None:
    """Respond to an error."""
    return ErrorResponse(f"{error.tenant} {request.path}", 402, {}) if prefers_html(request) else None


pages: ErrorPages = {TenantSuspended: to_billing, TenantNotFound: "<p>$title", TenantUnavailable: redirect("/x")}
for_asgi = ASGIMiddleware(
    asgi,
    tenants=tenants,
    resolver=of_the_request,
    public=["/health"],
    public_hosts=["app.example"],
    errors=pages,
    health="/health",
)
for_wsgi = WSGIMiddleware(wsgi, tenants=tenants, resolver=by_path("/t"))


of_fastapi = FastAPI()
install_fastapi(of_fastapi, tenants=tenants, resolver=of_the_request, errors=pages)
of_flask = Flask(__name__)
install_flask(of_flask, tenants=tenants, resolver=by_path("/t"), public=["/health"])


@of_fastapi.post("/dogs/{name}")
def enrol(name: str, tenant: CurrentTenant, school: TenantApplication[School]) -> str:
    """Use the dependencies of an endpoint."""
    assert_type(tenant, Tenant)
    assert_type(school.enrol(name), UUID)
    return tenant.name


def serve() -> int:
    """Create tenants, follow their events, suspend one and purge one."""
    acme = assert_type(tenants.create("acme", name="Acme Ltd", metadata={"plan": "gold"}), Tenant)
    school = assert_type(acme.get(School), School)
    school.teach(school.enrol("Fido"), "roll over")
    with tenants.runner(workers=2, lease_seconds=5.0, max_attempts=3) as runner:
        assert_type(runner, Runner)
        runner.wait("acme", timeout=10)
    projection = tenants.projection(CountTricks, "acme")
    with tenants.scope("acme"):
        assert_type(tenants.current, Tenant)
    try:
        tenants.suspend("acme", reason="invoice 4711")
    except TenantSuspended as error:
        assert_type(error.message, str)
    assert_type(acme.status, TenantStatus)
    assert_type(tenants.purge("acme"), PurgeCertificate)
    domain = assert_type(tenants.domains.add("acme", "shop.acme.example"), Domain)
    assert_type(tenants.domains.verify("acme", domain.host, domain.token).is_verified, bool)
    assert_type(tenants.domains.find(domain.host), Tenant | None)
    for database in tenants.ping(timeout=1.0).databases:
        assert_type(database.error, Exception | None)
    view: TrickCounts = projection.view
    return view.dogs_that_know("roll over")


class Graduate(JobKind):
    """An operation over many tenants."""

    name = "graduate"

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        """Choose every tenant."""
        return [PlannedItem(tenant, "graduate") for tenant in tenants]

    def run(self, tenant: Tenant, item: JobItem) -> str:
        """Record a last lesson."""
        item.check()
        self.fleet.application(School, tenant).enrol(str(self.parameters["dog"]))
        item.save_progress({"enrolled": True})
        return "1 dog"


def operate() -> bool:
    """Run an operation over some tenants, and inspect it."""
    options = JobOptions(canary=1, check=lambda: True, error_budget="5%")
    report = tenants.jobs.run(
        Graduate, {"dog": "Fido"}, tenants=TenantSelection(where={"plan": "gold"}), options=options
    )
    assert_type(report, JobReport)
    if report.job is not None and report.failures:
        assert_type(report.failures[0].error, str | None)
        tenants.jobs.resume(report.job.id)
    return report.is_success


def misuse() -> None:
    """Call the interface wrongly: a checker that accepts one of these lines reports its comment as unused."""
    tenants.create(1)  # type: ignore[arg-type]
    tenants.create("acme", colour="red")  # type: ignore[call-arg]
    tenants["acme"].get(School).enrol(1)  # type: ignore[arg-type]
    tenants.project(School, CountTricks, Dog)  # type: ignore[arg-type]
    tenants.jobs.run(School)  # type: ignore[arg-type]
    tenants.runner(workers="four")  # type: ignore[arg-type]
    ASGIMiddleware(asgi, tenants=tenants, resolver=len)  # type: ignore[arg-type]
    first(by_path(), "acme")  # type: ignore[arg-type]
    install_flask(of_fastapi, tenants=tenants, resolver=by_path())  # type: ignore[arg-type]
    install_fastapi(of_fastapi, tenants=tenants)  # type: ignore[call-arg]
    enrol("Fido", tenants["acme"], tenants["acme"].get(Diplomas))  # type: ignore[arg-type]
    tenants.domains.verify("acme", "shop.acme.example")  # type: ignore[call-arg]
