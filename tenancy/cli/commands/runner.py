"""``tenancy runner``: let followers process events, see how they are, and help those that have stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tenancy.cli import log
from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Actor, Json, Slug, seconds
from tenancy.cli.output import quoted, say, show_json, show_table
from tenancy.cli.parsing import Group, Verb

if TYPE_CHECKING:
    from tenancy.runner.failures import Failure
    from tenancy.runner.monitor import FollowerStatus

__all__ = ["VERBS", "runner"]

_Follower = Annotated[str, typer.Argument(metavar="FOLLOWER", help="The name of the follower or projection.")]


def start(
    context: typer.Context,
    *,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", metavar="NUMBER", min=1, help="How many threads process events; as many connections at most."
        ),
    ] = 4,
    lease_seconds: Annotated[
        float,
        typer.Option(
            "--lease",
            metavar="SECONDS",
            min=1.0,
            callback=seconds,
            help="After how many seconds of silence others take over.",
        ),
    ] = 10.0,
    drain_seconds: Annotated[
        float,
        typer.Option(
            "--drain",
            metavar="SECONDS",
            min=0.0,
            callback=seconds,
            help="How long to wait, at the end, for events under way.",
        ),
    ] = 30.0,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="PORT",
            min=1,
            max=65535,
            help="Where Prometheus finds metrics.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write the log as lines of JSON.")] = False,
) -> None:
    """Process the events of all tenants. Other processes may do so too. It ends with SIGTERM or Ctrl-C."""
    # The workers and nobody else use the tenants' connections here, unless somebody wants it otherwise.
    os.environ.setdefault("SQLALCHEMY_POOL_SIZE", str(workers))
    os.environ.setdefault("SQLALCHEMY_MAX_OVERFLOW", "0")
    log.configure(as_json=json)
    told = threading.Event()

    def tell(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second time means: at once
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    with open_tenancy(context) as tenants:
        running = tenants.runner(workers, lease_seconds=lease_seconds)
        if metrics_port is not None:
            _serve_metrics(metrics_port)
        running.start()
        fields = {"owner": running.owner, "workers": workers}
        log.logger.info("The runner works. It ends with SIGTERM or Ctrl-C.", extra=fields)
        told.wait()
        if not running.stop(drain_seconds):
            msg = f"Events were still under way after {drain_seconds:g} seconds: others will process them."
            raise CommandError(msg, remedy="Give it more time: --drain", code="failed")


def status(
    context: typer.Context,
    slug: Annotated[
        str | None, typer.Argument(metavar="SLUG", help="Only the tenant with this slug or id.", show_default=False)
    ] = None,
    *,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", metavar="SECONDS", min=0.0, callback=seconds, help="Measure rates for so many seconds."
        ),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Show how far behind each follower is. And who works for it, and what has stopped it."""
    with open_tenancy(context) as tenants:
        wanted = None if slug is None else tenant_of(tenants, slug).id
        found = [each for each in tenants.followers.status(interval) if wanted in (None, each.tenant_id)]
    if json:
        show_json([_record(each) for each in found])
        return
    header = ("tenant", "follower", "behind", "state", "lag", "per second", "owner", "stopped at", "error")
    show_table(header, [_row(each) for each in found])


def retry(
    context: typer.Context,
    slug: Annotated[
        str | None, typer.Argument(metavar="SLUG", help="The tenant's slug or id.", show_default=False)
    ] = None,
    follower: Annotated[
        str | None, typer.Argument(metavar="FOLLOWER", help="Only this follower or projection.", show_default=False)
    ] = None,
    *,
    of_all: Annotated[bool, typer.Option("--all", help="Of all tenants, in place of SLUG.")] = False,
    name: Annotated[
        str | None,
        typer.Option("--follower", metavar="NAME", help="The same as FOLLOWER, for --all.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Let the followers of a tenant that have stopped try again. Or those of all tenants."""
    if of_all == (slug is not None):
        msg = "No slug was given." if slug is None else f"{quoted(slug)} is one tenant, and --all is for all."
        raise CommandError(msg, remedy="Give SLUG, SLUG FOLLOWER, --all, or --all --follower NAME.")
    if follower is not None and name is not None:
        msg = "The follower is named twice: as FOLLOWER and by --follower."
        raise CommandError(msg, remedy="Leave out one of them.")
    with open_tenancy(context) as tenants:
        wanted = None if slug is None else tenant_of(tenants, slug)
        failures = tenants.followers.retry(wanted, follower or name)
        found = tenants.fleet.registry.get_many(list({each.tenant_id for each in failures}))
    if json:
        show_json([_failure(each) for each in failures])
        return
    for failure in failures:
        tenant = found.get(failure.tenant_id)  # none when it has been purged just now
        of = "a tenant that is gone" if tenant is None else quoted(tenant.slug)
        what = "" if failure.notification_id is None else f" notification {failure.notification_id}"
        say(f"{failure.follower} of {of} tries{what} again.")
    if not failures:
        say("No follower has stopped." if wanted is None else f"No follower of {quoted(wanted.slug)} has stopped.")


def skip(
    context: typer.Context,
    slug: Slug,
    follower: _Follower,
    notification_id: Annotated[
        int, typer.Argument(metavar="ID", help="The notification that it has stopped at: see status.")
    ],
    *,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Let a follower leave out one notification, for ever. It is the one that it has stopped at; the history has it."""
    with open_tenancy(context) as tenants:
        tenant = tenant_of(tenants, slug)
        failure = tenants.followers.skip(tenant, follower, notification_id, actor=actor)
    if json:
        show_json(_failure(failure))
    else:
        say(f"{follower} of {quoted(tenant.slug)} leaves out notification {notification_id} of {failure.leader}.")


def _row(each: FollowerStatus) -> tuple[object, ...]:
    failure = each.failure
    return (
        each.tenant,
        each.follower,
        each.leader,
        each.state,
        each.lag,
        "" if each.rate is None else f"{each.rate:.1f}",
        (each.owner or "nobody") + ("" if each.owner_failing is None else f" failing: {each.owner_failing}"),
        "" if failure is None or failure.notification_id is None else failure.notification_id,
        "" if failure is None else failure.error,
    )


def _record(each: FollowerStatus) -> dict[str, Any]:
    failure = None if each.failure is None else _failure(each.failure)
    return {**asdict(each), "tenant_id": str(each.tenant_id), "failure": failure}


def _failure(failure: Failure) -> dict[str, Any]:
    record = {
        key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(failure).items()
    }
    return {**record, "tenant_id": str(failure.tenant_id)}


def _serve_metrics(port: int) -> None:
    try:
        from prometheus_client import start_http_server  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = "--metrics-port needs prometheus-client, which is not installed."
        raise CommandError(msg, remedy="Install it: pip install 'eventsourcing-sqlalchemy[metrics]'") from error
    try:
        start_http_server(port)
    except OSError as error:
        msg = f"--metrics-port {port} cannot be used: {error.strerror or error}."
        raise CommandError(msg, remedy="Give another port, or end what uses this one.", code="failed") from error


VERBS: Final[tuple[tuple[str, Callable[..., None], str], ...]] = (
    ("start", start, "tenancy --app shop:tenants runner start --workers 8"),
    ("status", status, "tenancy runner status --interval 1"),
    ("retry", retry, "tenancy runner retry acme Reports"),
    ("skip", skip, "tenancy runner skip acme Reports 4711"),
)
"""Name, function and example of each verb."""

runner = typer.Typer(cls=Group, add_completion=False, rich_markup_mode=None, no_args_is_help=True)
for _name, _function, _example in VERBS:
    runner.command(_name, cls=Verb, epilog=f"Example: {_example}")(_function)
