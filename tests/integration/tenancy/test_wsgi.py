"""WSGI only: a response iterable, which is consumed after the application has returned."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from tenancy import Tenancy
from tenancy.errors import NoCurrentTenant, TenantSuspended
from tenancy.web.resolvers import by_path
from tenancy.web.wsgi import WSGIMiddleware
from tests.samples.kennels import Kennel

HEADERS = [("Content-Type", "text/plain")]


def behind(app: WSGIApplication, tenants: Tenancy) -> WSGIApplication:
    """Wrap an application in the middleware, and validate the WSGI protocol on both sides."""
    middleware = WSGIMiddleware(validator(app), tenants=tenants, resolver=by_path("/t"), public=["/public"])
    return validator(middleware)


def environ(path: str = "/t/acme/") -> WSGIEnvironment:
    variables: WSGIEnvironment = {"PATH_INFO": path}
    setup_testing_defaults(variables)
    variables["QUERY_STRING"] = ""
    variables["SCRIPT_NAME"] = ""
    return variables


def serve(app: WSGIApplication, path: str = "/t/acme/") -> str:
    """Serve one request with the standard library; return the response."""
    sent, errors = io.BytesIO(), io.StringIO()
    SimpleHandler(io.BytesIO(), sent, errors, environ(path), multithread=True).run(app)
    return sent.getvalue().decode() + errors.getvalue()


def current(tenants: Tenancy) -> str:
    try:
        return tenants.current.slug
    except NoCurrentTenant:
        return "none"


class Stream:
    """An application whose response names the current tenant at each step."""

    def __init__(self, tenants: Tenancy) -> None:
        self.seen: list[str] = []
        self._tenants = tenants

    def __call__(self, _: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        return self

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(3):
            self.seen.append(current(self._tenants))
            yield self.seen[-1].encode()

    def close(self) -> None:
        self.seen.append(f"closed {current(self._tenants)}")


def test_the_scope_lasts_until_the_response_is_sent_and_closed(tenants: Tenancy) -> None:
    tenants.create("acme")
    stream = Stream(tenants)
    assert serve(behind(stream, tenants)).endswith("acmeacmeacme")
    assert stream.seen == ["acme", "acme", "acme", "closed acme"]
    assert current(tenants) == "none"


def test_a_public_response_has_no_tenant_of_the_thread(tenants: Tenancy) -> None:
    tenants.create("acme")
    stream = Stream(tenants)
    with tenants.scope("acme"):
        assert serve(behind(stream, tenants), "/public").endswith("nonenonenone")
    assert stream.seen[-1] == "closed none"


def test_a_disconnected_client_leaves_no_scope(tenants: Tenancy) -> None:
    tenants.create("acme")
    stream = Stream(tenants)
    body: Any = behind(stream, tenants)(environ(), lambda *_: lambda _: None)
    assert next(iter(body)) == b"acme"
    assert current(tenants) == "none"  # between two pieces, the server uses the thread for other requests
    body.close()
    assert stream.seen == ["acme", "closed acme"]
    assert current(tenants) == "none"


def suspended_after(pieces: int, tenants: Tenancy) -> WSGIApplication:
    """Return an application whose tenant is suspended after it has sent some pieces."""

    def app(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        return stream()

    def stream() -> Iterator[bytes]:
        for _ in range(pieces):
            yield b"piece"
        tenants.suspend("acme")
        tenants.application(Kennel)

    return app


def test_an_unsent_response_is_replaced(tenants: Tenancy) -> None:
    tenants.create("acme")
    answer = serve(behind(suspended_after(0, tenants), tenants))
    assert "403 Forbidden" in answer
    assert '"unavailable"' in answer
    assert "200 OK" not in answer
    assert "acme" not in answer


def test_an_error_after_start_response_is_replaced(tenants: Tenancy) -> None:
    tenants.create("acme")

    def app(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        tenants.suspend("acme")
        return [str(tenants.application(Kennel)).encode()]

    answer = serve(behind(app, tenants))
    assert "403 Forbidden" in answer
    assert "200 OK" not in answer


def test_a_partly_sent_response_is_aborted(tenants: Tenancy) -> None:
    tenants.create("acme")
    body = WSGIMiddleware(suspended_after(1, tenants), tenants=tenants, resolver=by_path("/t"))(
        environ(), server_sent()
    )
    pieces = iter(body)
    assert next(pieces) == b"piece"
    with pytest.raises(TenantSuspended):
        next(pieces)


def server_sent() -> Callable[..., Any]:
    """Return the ``start_response`` of a server that sends the headers at once."""

    def start_response(_status: str, _headers: object, exc_info: Any = None) -> Callable[[bytes], object]:
        if exc_info is not None:
            raise exc_info[1]
        return lambda _: None

    return start_response


def test_bytes_that_are_not_text_are_passed_through(tenants: Tenancy) -> None:
    tenants.create("acme")

    def app(variables: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        return [repr((variables["SCRIPT_NAME"], variables["PATH_INFO"])).encode()]

    given = environ("/t/acme/\xff\xc3\xa9")
    before = dict(given)
    body = WSGIMiddleware(app, tenants=tenants, resolver=by_path("/t"))(given, server_sent())
    assert list(body) == [repr(("/t/acme", "/\xff\xc3\xa9")).encode()]
    assert given == before
