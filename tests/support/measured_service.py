"""A web service of the training school with metrics, as a process: it prints its port and serves until it is killed.

``POST /t/SLUG/dogs`` registers a dog, ``POST /t/SLUG/conflict`` loses against another writer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from eventsourcing.persistence import IntegrityError
from prometheus_client import make_wsgi_app

from tenancy import Tenancy
from tenancy.telemetry.metrics import measure
from tenancy.web.resolvers import by_path
from tenancy.web.wsgi import WSGIMiddleware
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.support.fleets import fleet


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name in the base class)
        pass


def serve(tenants: Tenancy) -> None:
    """Serve until the process ends."""
    metrics = make_wsgi_app()

    def service(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        school = tenants.application(TrainingSchool)
        dog_id = school.register("Fido")
        if environ["PATH_INFO"] == "/conflict":
            first: Dog = school.repository.get(dog_id)
            second: Dog = school.repository.get(dog_id)
            for dog in first, second:
                dog.add_trick("sit")
                with suppress(IntegrityError):
                    school.save(dog)
        start_response("201 Created", [("content-length", "0")])
        return [b""]

    app = WSGIMiddleware(service, tenants=tenants, resolver=by_path("/t"), public=["/metrics"])
    measure(tenants)
    with make_server("127.0.0.1", 0, app, handler_class=_Silent) as server:
        print(server.server_port, flush=True)  # noqa: T201 (the parent process reads it)
        server.serve_forever()


if __name__ == "__main__":
    with fleet(sys.argv[1]) as served:
        serve(served)
