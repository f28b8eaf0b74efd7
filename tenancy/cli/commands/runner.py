"""The commands of ``tenancy runner``: start, status, retry, skip."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tenancy.cli import log, shapes
from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Actor, Json, Slug, seconds
from tenancy.cli.output import quoted, say, show_json, show_table
from tenancy.cli.parsing import Command, Group

if TYPE_CHECKING:
    from tenancy import Tenancy
    from tenancy.runner import Runner
    from tenancy.runner.monitor import FollowerStatus

__all__ = ["COMMANDS", "runner"]

_Follower = Annotated[str, typer.Argument(metavar="FOLLOWER", help="Name of the follower or projection.")]


def start(
    context: typer.Context,
    *,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", metavar="NUMBER", min=1, help="Number of worker threads, and maximum number of connections."
        ),
    ] = 4,
    lease_seconds: Annotated[
        float,
        typer.Option(
            "--lease",
            metavar="SECONDS",
            min=1.0,
            callback=seconds,
            help="Seconds of silence after which another process takes over.",
        ),
    ] = 10.0,
    drain_seconds: Annotated[
        float,
        typer.Option(
            "--drain",
            metavar="SECONDS",
            min=0.0,
            callback=seconds,
            help="Seconds to wait at shutdown for events in progress.",
        ),
    ] = 30.0,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="PORT",
            min=1,
            max=65535,
            help="Port to serve Prometheus metrics on.",
            show_default=False,
        ),
    ] = None,
    metrics_tenants: Annotated[
        int,
        typer.Option(
            "--metrics-tenants",
            metavar="NUMBER",
            min=0,
            help="Maximum number of tenants with metrics of their own; the others share one label.",
        ),
    ] = 100,
    tracing: Annotated[
        bool, typer.Option("--tracing", help="Record spans with OpenTelemetry's global tracer provider.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write the log as JSON lines.")] = False,
) -> None:
    """Process the events of all tenants until SIGTERM or Ctrl-C. Several processes share the work."""
    # Only workers use connections of tenants here; the environment may override this.
    os.environ.setdefault("SQLALCHEMY_POOL_SIZE", str(workers))
    os.environ.setdefault("SQLALCHEMY_MAX_OVERFLOW", "0")
    log.configure(as_json=json)
    with ExitStack() as resources:
        if json:
            resources.callback(log.capture_output())
        if tracing:
            _start_tracing()
        metrics = None if metrics_port is None else (metrics_port, metrics_tenants)
        _run(context, workers, lease_seconds, drain_seconds, metrics)


def _run(
    context: typer.Context,
    workers: int,
    lease_seconds: float,
    drain_seconds: float,
    metrics: tuple[int, int] | None,
) -> None:
    is_stopping = threading.Event()

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        is_stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with open_tenancy(context) as tenants:
        log.add_tenants(tenants)
        running = tenants.runner(workers, lease_seconds=lease_seconds)
        if metrics is not None:
            _serve_metrics(*metrics, tenants, running)
        running.start()
        fields = {"event": "runner.started", "owner": running.owner, "workers": workers}
        log.logger.info("Runner started. Stop it with SIGTERM or Ctrl-C.", extra=fields)
        is_stopping.wait()
        is_drained = running.stop(drain_seconds)
        log.logger.info("Runner stopped.", extra={"event": "runner.stopped", "owner": running.owner})
        if not is_drained:
            msg = f"Events were still in progress after {drain_seconds:g} seconds. Another runner will process them."
            raise CommandError(msg, remedy="Allow more time: --drain SECONDS", code="failed")


def status(
    context: typer.Context,
    slug: Annotated[
        str | None,
        typer.Argument(metavar="SLUG", help="Show only the tenant with this slug or id.", show_default=False),
    ] = None,
    *,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", metavar="SECONDS", min=0.0, callback=seconds, help="Seconds over which to measure rates."
        ),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Show lag, owner and failure of each follower."""
    with open_tenancy(context) as tenants:
        wanted = None if slug is None else tenant_of(tenants, slug).id
        found = [each for each in tenants.followers.status(interval) if wanted in (None, each.tenant_id)]
    if json:
        show_json([shapes.follower(each) for each in found])
        return
    header = ("tenant", "follower", "behind", "state", "lag", "per second", "owner", "failed at", "error")
    show_table(header, [_row(each) for each in found])


def retry(
    context: typer.Context,
    slug: Annotated[
        str | None, typer.Argument(metavar="SLUG", help="Slug or id of the tenant.", show_default=False)
    ] = None,
    follower: Annotated[
        str | None,
        typer.Argument(metavar="FOLLOWER", help="Retry only this follower or projection.", show_default=False),
    ] = None,
    *,
    all_tenants: Annotated[bool, typer.Option("--all", help="Retry followers of all tenants. Replaces SLUG.")] = False,
    name: Annotated[
        str | None,
        typer.Option("--follower", metavar="NAME", help="Same as FOLLOWER, for use with --all.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Retry failing followers of one tenant or of all tenants."""
    if all_tenants == (slug is not None):
        msg = "No slug was given." if slug is None else "SLUG and --all are mutually exclusive."
        raise CommandError(msg, remedy="Pass SLUG, SLUG FOLLOWER, --all, or --all --follower NAME.")
    if follower is not None and name is not None:
        msg = "The follower is named twice: as FOLLOWER and by --follower."
        raise CommandError(msg, remedy="Omit one of them.")
    with open_tenancy(context) as tenants:
        wanted = None if slug is None else tenant_of(tenants, slug)
        failures = tenants.followers.retry(wanted, follower or name)
        found = tenants.fleet.registry.get_many(list({each.tenant_id for each in failures}))
    if json:
        show_json([shapes.failure(each) for each in failures])
        return
    for failure in failures:
        tenant = found.get(failure.tenant_id)  # None when it has just been purged
        of = "a purged tenant" if tenant is None else quoted(tenant.slug)
        what = "" if failure.notification_id is None else f" notification {failure.notification_id}"
        say(f"{failure.follower} of {of} retries{what}.")
    if not failures:
        say("No follower is failing." if wanted is None else f"No follower of {quoted(wanted.slug)} is failing.")


def skip(
    context: typer.Context,
    slug: Slug,
    follower: _Follower,
    notification_id: Annotated[
        int, typer.Argument(metavar="ID", help="Notification that the follower fails at: see tenancy runner status.")
    ],
    *,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Skip one notification permanently. The follower must be failing at it; the history records the skip."""
    with open_tenancy(context) as tenants:
        tenant = tenant_of(tenants, slug)
        failure = tenants.followers.skip(tenant, follower, notification_id, actor=actor)
    if json:
        show_json(shapes.failure(failure))
    else:
        say(f"{follower} of {quoted(tenant.slug)} skips notification {notification_id} of {failure.leader}.")


def _row(each: FollowerStatus) -> tuple[object, ...]:
    failure = each.failure
    return (
        each.tenant,
        each.follower,
        each.leader,
        each.state,
        each.lag,
        "" if each.rate is None else f"{each.rate:.1f}",
        (each.owner or "none") + ("" if each.owner_failing is None else f" failing: {each.owner_failing}"),
        "" if failure is None or failure.notification_id is None else failure.notification_id,
        "" if failure is None else failure.error,
    )


def _start_tracing() -> None:
    try:
        from tenancy.telemetry.tracing import start_tracing  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = "--tracing needs opentelemetry-api, which is not installed."
        raise CommandError(msg, remedy="Install it: pip install 'eventsourcing-sqlalchemy[tracing]'") from error
    start_tracing()


def _serve_metrics(port: int, max_tenants: int, tenants: Tenancy, running: Runner) -> None:
    try:
        from prometheus_client import start_http_server  # noqa: PLC0415 (an extra)

        from tenancy.telemetry.metrics import measure  # noqa: PLC0415 (as above)
    except ImportError as error:
        msg = "--metrics-port needs prometheus-client, which is not installed."
        raise CommandError(msg, remedy="Install it: pip install 'eventsourcing-sqlalchemy[metrics]'") from error
    measure(tenants, runner=running, max_tenants=max_tenants)
    try:
        start_http_server(port)
    except OSError as error:
        msg = f"--metrics-port {port} cannot be used: {error.strerror or error}."
        raise CommandError(
            msg, remedy="Choose another port, or stop the process that uses this one.", code="failed"
        ) from error


COMMANDS: Final[tuple[tuple[str, Callable[..., None], str], ...]] = (
    ("start", start, "tenancy --app shop:tenants runner start --workers 8"),
    ("status", status, "tenancy runner status --interval 1"),
    ("retry", retry, "tenancy runner retry acme Reports"),
    ("skip", skip, "tenancy runner skip acme Reports 4711"),
)
"""Name, function and example of each command."""

runner = typer.Typer(cls=Group, add_completion=False, rich_markup_mode=None, no_args_is_help=True)
for _name, _function, _example in COMMANDS:
    runner.command(_name, cls=Command, epilog=f"Example: {_example}")(_function)
