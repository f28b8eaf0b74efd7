"""Spans of OpenTelemetry: what they say, what they never contain, and how a trace goes on behind a follower."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import field
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError
from eventsourcing.system import ProcessApplication, System
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import db_attributes, error_attributes, http_attributes, server_attributes
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode

from tenancy import Tenancy, Tenant
from tenancy.errors import InvalidArgument
from tenancy.instruments import instruments
from tenancy.operations.jobs import ItemSkipped, JobItem, JobKind, PlannedItem
from tenancy.persistence import TenantDatastore
from tenancy.telemetry.tracing import start_tracing, traceparent
from tenancy.web.asgi import ASGIMiddleware
from tenancy.web.resolvers import by_path
from tenancy.web.wsgi import WSGIMiddleware
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.fleets import fleet

CANARY = "kanarienvogel"


class Visit(Aggregate):
    class Event(Aggregate.Event):
        """An event that says which span has recorded it."""

        traceparent: str | None = field(default_factory=traceparent, kw_only=True)

    class Created(Event, Aggregate.Created):
        """The first one, too."""

    @event("Booked")
    def __init__(self, patient: str) -> None:
        self.patient = patient


class Clinic(Application[UUID]):
    def book(self, patient: str) -> None:
        self.save(Visit(patient))


class Bills(ProcessApplication[UUID]):
    def policy(self, domain_event: Any, processing_event: Any) -> None:
        processing_event.collect_events(Visit(f"bill of {domain_event.patient}"))


class Spans:
    """The finished spans."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [each for each in self.all() if each.name == name]


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider()


@pytest.fixture
def spans(provider: TracerProvider) -> Iterator[Spans]:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with closing(start_tracing(provider)):
        yield Spans(exporter)
    provider.shutdown()
    assert (TenantDatastore.observer, instruments.tracer) == (None, None)


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def tenants(url: str) -> Iterator[Tenancy]:
    with fleet(url, ["acme", "globex"]) as tenants:
        yield tenants


def context_of(span: ReadableSpan | Span) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_appends_and_reads_are_calls_of_a_database_client(tenants: Tenancy, spans: Spans, url: str) -> None:
    school = tenants["acme"].get(TrainingSchool)
    dog_id = school.register(CANARY, "sit")
    school.repository.get(dog_id)
    (append,), (read, *_) = spans.named("append TrainingSchool"), spans.named("read TrainingSchool")
    found = attributes(append)
    assert (append.kind, read.kind) == (SpanKind.CLIENT, SpanKind.CLIENT)
    assert found["tenancy.tenant.id"] == str(tenants["acme"].id)
    assert found[db_attributes.DB_SYSTEM_NAME] == url.partition(":")[0].partition("+")[0]
    assert found[db_attributes.DB_OPERATION_NAME] == "append"
    assert found[db_attributes.DB_OPERATION_BATCH_SIZE] == 2
    assert found[db_attributes.DB_COLLECTION_NAME].endswith("trainingschool_events")
    assert (server_attributes.SERVER_ADDRESS in found) == url.startswith("postgresql")
    assert attributes(read)[db_attributes.DB_OPERATION_NAME] == "read"


def test_errors_appear_by_class_and_code(tenants: Tenancy, spans: Spans) -> None:
    school = tenants["acme"].get(TrainingSchool)
    dog_id = school.register("Fido")
    first: Dog = school.repository.get(dog_id)
    second: Dog = school.repository.get(dog_id)
    for dog in first, second:
        dog.add_trick(CANARY)
    school.save(first)
    with pytest.raises(IntegrityError):
        school.save(second)
    failed = spans.named("append TrainingSchool")[-1]
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.status.description, failed.events) == (None, ())
    assert attributes(failed)[error_attributes.ERROR_TYPE] == "eventsourcing.persistence.IntegrityError"
    assert attributes(failed)[db_attributes.DB_RESPONSE_STATUS_CODE] in ("23505", "SQLITE_CONSTRAINT_UNIQUE")
    assert CANARY not in "".join(span.to_json() for span in spans.all())


def serve_asgi(app: Callable[..., Any], path: str, headers: list[tuple[bytes, bytes]]) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    asyncio.run(app(scope, None, send))
    status: int = sent[0]["status"]
    return status


def test_requests(tenants: Tenancy, spans: Spans, provider: TracerProvider) -> None:
    async def service(_: Any, __: Any, send: Any) -> None:
        tenants.application(TrainingSchool).register("Fido")
        await send({"type": "http.response.start", "status": 201, "headers": []})

    app = ASGIMiddleware(service, tenants=tenants, resolver=by_path("/t"), public=["/health"])
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert serve_asgi(app, "/t/acme/dogs", [(b"traceparent", caller.encode())]) == 201
    (request,) = spans.named("GET")
    assert request.kind is SpanKind.SERVER
    assert f"{context_of(request).trace_id:x}" in caller
    assert attributes(request) == {
        "tenancy.tenant.id": str(tenants["acme"].id),
        http_attributes.HTTP_REQUEST_METHOD: "GET",
        http_attributes.HTTP_RESPONSE_STATUS_CODE: 201,
    }
    (append,) = spans.named("append TrainingSchool")
    assert append.parent is not None
    assert append.parent.span_id == context_of(request).span_id
    # The span of a framework's instrumentation is not doubled.
    with provider.get_tracer("framework").start_as_current_span("GET /t/{slug}/dogs") as span:
        assert serve_asgi(app, "/t/globex/dogs", []) == 201
    assert isinstance(span, ReadableSpan)
    assert attributes(span) == {"tenancy.tenant.id": str(tenants["globex"].id)}
    assert len(spans.named("GET")) == 1


def test_requests_of_wsgi_that_are_refused_while_they_are_served(tenants: Tenancy, spans: Spans) -> None:
    def service(environ: Any, start_response: Any) -> list[bytes]:
        school = tenants.application(TrainingSchool)
        if environ["PATH_INFO"] == "/refused":
            tenants.suspend("acme")
            school.register("Fido")
        start_response("500 Internal Server Error", [])
        return [b""]

    app = WSGIMiddleware(service, tenants=tenants, resolver=by_path("/t"))
    for path in "error", "refused":
        app({"PATH_INFO": f"/t/acme/{path}", "REQUEST_METHOD": "POST"}, lambda *_: lambda _: None)
    failed, refused = spans.named("POST")
    assert attributes(failed)[http_attributes.HTTP_RESPONSE_STATUS_CODE] == 500
    assert failed.status.status_code is StatusCode.ERROR
    assert attributes(refused)[http_attributes.HTTP_RESPONSE_STATUS_CODE] == 403
    assert refused.status.status_code is StatusCode.UNSET


def test_the_trace_of_a_writer_goes_on_behind_a_follower(url: str, spans: Spans, provider: TracerProvider) -> None:
    tenants = Tenancy(system=System(pipes=[[Clinic, Bills]]), env={"SQLALCHEMY_URL": url})
    with tenants, provider.get_tracer("service").start_as_current_span("sign-up") as span:
        tenants.create("acme")
        tenants["acme"].get(Clinic).book(CANARY)
        trace_id = context_of(span).trace_id
    with Tenancy(system=System(pipes=[[Clinic, Bills]]), env={"SQLALCHEMY_URL": url}) as others:
        with others.runner() as runner:
            runner.wait("acme", DEADLINE_SECONDS)
        wait_until(lambda: bool(spans.named("turn Bills")), "the turn has ended")
        (process,) = spans.named("process Clinic")
        assert process.kind is SpanKind.CONSUMER
        assert context_of(process).trace_id == trace_id
        found = attributes(process)
        assert found["tenancy.tenant.id"] == str(others["acme"].id)
        assert found[messaging_attributes.MESSAGING_DESTINATION_NAME] == "Clinic"
        assert found[messaging_attributes.MESSAGING_CONSUMER_GROUP_NAME] == "Bills"
        assert found[messaging_attributes.MESSAGING_MESSAGE_ID] == "1"
        assert found[messaging_attributes.MESSAGING_OPERATION_TYPE] == "process"
        turns = {context_of(turn).span_id for turn in spans.named("turn Bills")}
        assert {link.context.span_id for link in process.links} <= turns
        # So does the trace of what the follower records.
        (append,) = spans.named("append Bills")
        assert context_of(append).trace_id == trace_id
        (bill,) = others["acme"].get(Bills).notification_log.select(1, 10)
        recorded: Any = others["acme"].get(Bills).mapper.to_domain_event(bill)
        assert f"{context_of(process).span_id:016x}" in recorded.traceparent
    assert CANARY not in "".join(each.to_json() for each in spans.all())


def test_without_a_traceparent_the_turn_is_the_parent(tenants: Tenancy, spans: Spans) -> None:
    tenants["acme"].get(TrainingSchool).register("Fido", "poison")
    with tenants.runner(max_attempts=1):
        wait_until(lambda: len(spans.named("process TrainingSchool")) >= 4, "two followers have processed two events")
    wait_until(lambda: len(spans.named("turn Diaries")) >= 1, "the turn has ended")
    named = spans.named("process TrainingSchool")
    processed = [each for each in named if attributes(each)["tenancy.follower"] == "Diaries"]
    turns = {context_of(each).span_id for each in spans.named("turn Diaries")}
    assert {each.parent.span_id for each in processed if each.parent is not None} <= turns
    assert len(processed) == 2
    (failed,) = [each for each in processed if each.status.status_code is StatusCode.ERROR]
    assert attributes(failed)["error.type"].endswith("Poisoned")


class Halving(JobKind):
    name = "halving"

    def plan(self, tenants: Sequence[Tenant]) -> Sequence[PlannedItem]:
        return [PlannedItem(tenant, "halve") for tenant in tenants]

    def run(self, tenant: Tenant, item: JobItem) -> str:
        if tenant.slug == "acme":
            raise ItemSkipped(CANARY)
        raise ValueError(CANARY)


def test_tenants_of_a_job(tenants: Tenancy, spans: Spans) -> None:
    report = tenants.jobs.run(Halving)
    assert report.job is not None
    found = {attributes(each)["tenancy.tenant.id"]: each for each in spans.named("job halving")}
    skipped, failed = found[str(tenants["acme"].id)], found[str(tenants["globex"].id)]
    assert attributes(failed)["tenancy.job.id"] == str(report.job.id)
    assert (skipped.status.status_code, failed.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    assert attributes(failed)["error.type"] == "builtins.ValueError"
    assert CANARY not in "".join(each.to_json() for each in spans.all())


def test_nothing_below_a_span_that_is_not_sampled(tenants: Tenancy, spans: Spans) -> None:
    with TracerProvider(sampler=ALWAYS_OFF).get_tracer("x").start_as_current_span("unsampled"):
        tenants["acme"].get(TrainingSchool).register("Fido")
    assert spans.all() == ()
    assert traceparent() is None


def test_tracing_starts_once(spans: Spans) -> None:
    with pytest.raises(InvalidArgument, match="traced already"):
        start_tracing()
    assert spans.all() == ()


def test_an_api_without_an_sdk_changes_nothing(sqlite_url: str) -> None:
    with fleet(sqlite_url, ["acme"]) as tenants, closing(start_tracing(trace.NoOpTracerProvider())):
        tenants["acme"].get(TrainingSchool).register(f"Fido {uuid4()}")
