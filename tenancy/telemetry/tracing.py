"""Spans of OpenTelemetry for requests, appends, reads, turns of followers and tenants of jobs.

Spans contain ids, names of code and codes of errors: no event, no value, no message of an error, no slug and no path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from eventsourcing_sqlalchemy.errors import code_of, describe
from tenancy.errors import InvalidArgument
from tenancy.instruments import instruments
from tenancy.operations.jobs import ItemSkipped
from tenancy.telemetry.observer import observe_recorders

if TYPE_CHECKING:
    from tenancy.model.tenant import Tenant
    from tenancy.persistence import TenantDatastore
    from tenancy.runner.ready_queue import Key

__all__ = ["Tracing", "start_tracing", "traceparent"]

_T = TypeVar("_T")

_W3C: Final = TraceContextTextMapPropagator()
_HEADER: Final = "traceparent"

# The turn that runs in a context: only the runner continues the traces of events, not a rebuild, which reads old ones.
_turn: ContextVar[SpanContext | None] = ContextVar("tenancy_turn", default=None)


def start_tracing(tracer_provider: TracerProvider | None = None) -> Tracing:
    """Record spans in this process, with a provider of OpenTelemetry's SDK; None for the global one.

    It ends with :meth:`Tracing.close`. Raises InvalidArgument when this process is traced already.
    """
    if instruments.tracer is not None:
        msg = "This process is traced already."
        raise InvalidArgument(msg, remedy="Start tracing once in each process, or close() the other one first.")
    return Tracing(tracer_provider)


def traceparent() -> str | None:
    """Return the context of the current span as a W3C ``traceparent``, or None outside of spans.

    For a field of this name in your events: the runner continues the trace where it processes them.
    """
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get(_HEADER)


class Tracing:
    """The spans of this process; see :func:`start_tracing`. Safe to use from many threads."""

    def __init__(self, tracer_provider: TracerProvider | None) -> None:
        self._tracer = trace.get_tracer("tenancy", tracer_provider=tracer_provider)
        instruments.tracer = self
        observe_recorders()

    def close(self) -> None:
        """Record no more spans; idempotent."""
        if instruments.tracer is self:
            instruments.tracer = None
            observe_recorders()

    def call(self, operation: str, datastore: TenantDatastore, table: object, call: Callable[[], _T], count: int) -> _T:
        """Return the result of a recorder's call, in a span of a database client."""
        if _is_unsampled():
            return call()
        attributes = {**_database(datastore, table), "db.operation.name": operation}
        if count > 1:
            attributes["db.operation.batch.size"] = count
        with self._span(f"{operation} {datastore.application}", SpanKind.CLIENT, attributes):
            return call()

    def request(
        self,
        scope: AbstractContextManager[None],
        tenant: Tenant | None,
        method: str,
        headers: Sequence[tuple[str, str]],
        status: Callable[[], int | None],
    ) -> AbstractContextManager[None]:
        """Return the scope of a request with its span: that of the framework, or a new one of a server."""
        return self._request(scope, None if tenant is None else tenant.id, method, headers, status)

    @contextmanager
    def _request(
        self,
        scope: AbstractContextManager[None],
        tenant_id: UUID | None,
        method: str,
        headers: Sequence[tuple[str, str]],
        status: Callable[[], int | None],
    ) -> Iterator[None]:
        attributes: dict[str, str | int] = {} if tenant_id is None else {"tenancy.tenant.id": str(tenant_id)}
        current = trace.get_current_span()
        if current.get_span_context().is_valid:
            current.set_attributes(attributes)
            with scope:
                yield
            return
        attributes["http.request.method"] = method
        parent = extract(dict(headers))
        with scope, self._span(method, SpanKind.SERVER, attributes, context=parent) as span:
            yield
            code = status()
            if code is not None:
                span.set_attribute("http.response.status_code", code)
                if code >= _SERVER_ERROR:
                    span.set_status(StatusCode.ERROR)

    def turn(self, run: Callable[[Key, Any], _T]) -> Callable[[Key, Any], _T]:
        """Return a function that runs a turn of a follower in a span."""

        def traced(key: Key, leaders: Any) -> _T:
            attributes = {"tenancy.tenant.id": str(key[0]), "tenancy.follower": key[1]}
            with self._span(f"turn {key[1]}", SpanKind.INTERNAL, attributes) as span:
                token = _turn.set(span.get_span_context())
                try:
                    return run(key, leaders)
                finally:
                    _turn.reset(token)

        return traced

    def processing(
        self, process: Callable[[Any, Any], None], leader: Any, notification_id: int
    ) -> Callable[[Any, Any], None]:
        """Return a function that processes an event in a span, which continues the trace of the event's writer."""
        turn = _turn.get()
        if turn is None:
            return process

        def traced(domain_event: Any, tracking: Any) -> None:
            writer = getattr(domain_event, _HEADER, None)
            parent = _W3C.extract({_HEADER: writer}) if isinstance(writer, str) else None
            if parent is None and _is_unsampled():
                process(domain_event, tracking)
                return
            follower = getattr(process, "__self__", process)
            name = getattr(follower, "name", type(follower).__name__)
            attributes = {
                "tenancy.tenant.id": str(leader.recorder.datastore.tenant_id),
                "tenancy.follower": name,
                "messaging.system": "eventsourcing_sqlalchemy",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": leader.name,
                "messaging.consumer.group.name": name,
                "messaging.message.id": str(notification_id),
            }
            links = [] if parent is None else [Link(turn)]
            with self._span(f"process {leader.name}", SpanKind.CONSUMER, attributes, context=parent, links=links):
                process(domain_event, tracking)

        return traced

    def item(self, run: Callable[[Tenant, Any], str], job: Any) -> Callable[[Tenant, Any], str]:
        """Return a function that runs a job for one tenant in a span."""

        def traced(tenant: Tenant, item: Any) -> str:
            attributes = {
                "tenancy.tenant.id": str(tenant.id),
                "tenancy.job.id": str(job.id),
                "tenancy.job.kind": job.kind,
            }
            with self._span(f"job {job.kind}", SpanKind.INTERNAL, attributes):
                return run(tenant, item)

        return traced

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, str | int],
        *,
        context: Any = None,
        links: Sequence[Link] = (),
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=kind,
            attributes=dict(attributes),
            links=links,
            # Not the message of an error, which may contain values.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except ItemSkipped:
                raise
            except BaseException as error:
                span.set_attribute("error.type", describe(error).partition(" ")[0])
                code = code_of(error)
                if code is not None:
                    span.set_attribute("db.response.status_code", code)
                span.set_status(StatusCode.ERROR)
                raise


_SERVER_ERROR: Final = 500


def _is_unsampled() -> bool:
    """Return whether this happens in a span that is not sampled: no span below it is, either."""
    context = trace.get_current_span().get_span_context()
    return context.is_valid and not context.trace_flags.sampled


def _database(datastore: TenantDatastore, table: Any) -> dict[str, str | int]:
    url = datastore.shared.engine.url
    attributes: dict[str, str | int] = {
        "tenancy.tenant.id": str(datastore.tenant_id),
        "db.system.name": datastore.dialect.name,
        "db.collection.name": table.name,
    }
    if datastore.dialect.is_server:
        names = [url.database or "", *([table.schema] if table.schema else [])]
        attributes["db.namespace"] = "|".join(names)
        attributes["server.address"] = url.host or "localhost"
        if url.port is not None:
            attributes["server.port"] = url.port
    return attributes
