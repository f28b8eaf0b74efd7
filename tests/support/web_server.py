"""A server process whose every answer contains the house dog of the tenant that it read.

``python -m tests.support.web_server asgi`` serves FastAPI with uvicorn, ``wsgi`` Flask with a thread for each
connection; it prints its port.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import uvicorn
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse
from flask import Flask, request
from werkzeug.serving import WSGIRequestHandler, make_server

from tenancy import Tenancy
from tenancy.errors import NoCurrentTenant, RegistryUnavailable, TenantUnavailable
from tenancy.web.asgi import ASGIMiddleware
from tenancy.web.resolvers import by_path
from tenancy.web.responses import ErrorResponse, error_response
from tenancy.web.wsgi import WSGIMiddleware
from tests.samples.kennels import Kennel

READS: Final = 8
"""The number of reads per answer of ``/many`` and ``/stream``."""


def fastapi_app(tenants: Tenancy) -> FastAPI:
    """Return an application with an endpoint for each way to run code."""
    app = FastAPI(default_response_class=PlainTextResponse)

    def owner() -> str:
        return tenants.application(Kennel).house_dog()

    def register(name: str) -> str:
        kennel = tenants.application(Kennel)
        return kennel.name_of(kennel.register(name))

    @app.get("/one")
    def one() -> str:
        return owner()

    @app.get("/hop")
    async def hop() -> str:
        return await asyncio.to_thread(owner)

    @app.get("/many")
    async def many() -> str:
        return "\n".join(await asyncio.gather(*[asyncio.to_thread(owner) for _ in range(READS)]))

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(f"{owner()}\n" for _ in range(READS))

    @app.get("/write")
    def write(name: str, background: BackgroundTasks) -> str:
        background.add_task(lambda: register(name))
        return register(name)

    @app.get("/public")
    async def public() -> str:
        return current_name(tenants)

    app.add_middleware(ASGIMiddleware, tenants=tenants, resolver=by_path("/t"), public=["/public"])
    return app


def flask_app(tenants: Tenancy, threads: ThreadPoolExecutor) -> Flask:
    """Return an application with an endpoint for each way to run code."""
    app = Flask(__name__)
    for error in (TenantUnavailable, RegistryUnavailable):
        app.register_error_handler(error, refuse)

    def owner() -> str:
        return tenants.application(Kennel).house_dog()

    @app.get("/one")
    @app.get("/hop")
    def one() -> str:
        return owner()

    @app.get("/many")
    def many() -> str:
        # A pooled thread has only the context that it is given.
        calls = [threads.submit(contextvars.copy_context().run, owner) for _ in range(READS)]
        return "\n".join(call.result() for call in calls)

    @app.get("/stream")
    def stream() -> Iterator[str]:
        return (f"{owner()}\n" for _ in range(READS))

    @app.get("/write")
    def write() -> str:
        kennel = tenants.application(Kennel)
        return kennel.name_of(kennel.register(request.args["name"]))

    @app.get("/public")
    def public() -> str:
        return current_name(tenants)

    app.wsgi_app = WSGIMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, tenants=tenants, resolver=by_path("/t"), public=["/public"]
    )
    return app


def refuse(error: TenantUnavailable | RegistryUnavailable) -> ErrorResponse:
    """Answer an endpoint's error: Flask handles errors itself, so the middleware never sees them."""
    return error_response(error)


def current_name(tenants: Tenancy) -> str:
    """Return the current tenant's name, or `unset`."""
    try:
        return tenants.current.name
    except NoCurrentTenant:
        return "unset"


def say_port(port: int) -> None:
    """Report the port to the parent process."""
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


def serve_asgi() -> None:
    """Serve until the process is terminated."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Tenancy(applications=[Kennel]) as tenants:
        say_port(listener.getsockname()[1])
        # Keep connections open for clients that get no processor time for some seconds.
        config = uvicorn.Config(
            fastapi_app(tenants),
            log_level="warning",
            lifespan="off",
            timeout_keep_alive=300,
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[listener])


def serve_wsgi() -> None:
    """Serve until the process is terminated."""

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # a thread serves many requests of a connection

        def log_request(self, *_: Any) -> None:
            """Log nothing."""

    with Tenancy(applications=[Kennel]) as tenants, ThreadPoolExecutor(8) as threads:
        server = make_server("127.0.0.1", 0, flask_app(tenants, threads), threaded=True, request_handler=Handler)
        say_port(server.port)
        server.serve_forever()


if __name__ == "__main__":
    {"asgi": serve_asgi, "wsgi": serve_wsgi}[sys.argv[1]]()
