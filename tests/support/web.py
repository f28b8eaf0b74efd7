"""A test application behind the ASGI or WSGI middleware, and a client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal
from wsgiref.types import StartResponse, WSGIEnvironment

import httpx
from werkzeug.test import Client

from tenancy import Tenancy
from tenancy.web.asgi import ASGIMiddleware
from tenancy.web.resolvers import Resolver
from tenancy.web.wsgi import WSGIMiddleware

Kind = Literal["asgi", "wsgi"]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Answer:
    """The response that the client received."""

    status: int
    headers: dict[str, str]
    body: str


class Web:
    """Serves requests with ``handler``, which receives the root path and the path."""

    def __init__(
        self,
        kind: Kind,
        tenants: Tenancy,
        handler: Callable[[str, str], str],
        resolver: Resolver,
        **options: Any,
    ) -> None:
        async def asgi(scope: Scope, _receive: Any, send: Any) -> None:
            root = scope.get("root_path", "")
            body = handler(root, scope["path"].removeprefix(root)).encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": body})

        def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            root, path = (environ[name].encode("latin-1").decode() for name in ("SCRIPT_NAME", "PATH_INFO"))
            body = handler(root, path).encode()
            start_response("200 OK", [("content-type", "text/plain")])
            return [body]

        self._asgi = ASGIMiddleware(asgi, tenants=tenants, resolver=resolver, **options)
        self._wsgi = WSGIMiddleware(wsgi, tenants=tenants, resolver=resolver, **options)
        self._kind = kind

    def get(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
        """Send a request and return the response; raises what the application raises."""
        if self._kind == "asgi":
            return asyncio.run(self._get(path, method, headers))
        with closing(Client(self._wsgi).open(path, method=method, headers=headers)) as response:
            return Answer(response.status_code, _lowered(response.headers.items()), response.text)

    async def _get(self, path: str, method: str, headers: dict[str, str] | None) -> Answer:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self._asgi), base_url="http://localhost") as client:
            response = await client.request(method, path, headers=headers)
        return Answer(response.status_code, _lowered(response.headers.items()), response.text)


def _lowered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


async def run(app: App, kind: str, path: str, **more: Any) -> list[Message]:
    """Call an application as a server does; return the messages it sent."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": f"{kind}.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": kind, "path": path, "headers": [], "method": "GET", **more}, receive, send)
    return sent


def call(app: App, kind: str, path: str, **more: Any) -> list[Message]:
    """Call :func:`run` in a new event loop."""
    return asyncio.run(run(app, kind, path, **more))
