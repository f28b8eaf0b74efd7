"""The commands of ``tenancy runner``: start, status, reactions, react, retry, skip."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple
from uuid import UUID

import typer

from tenancy.cli import log, shapes
from tenancy.cli.commands.reactions import react, reactions, show_reactions, slugs_of
from tenancy.cli.errors import CommandError
from tenancy.cli.instruments import measure_process, serve_metrics, start_tracing
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Actor, Json, Slug, seconds
from tenancy.cli.output import quoted, say, show_json, show_table
from tenancy.cli.parsing import Command, Group
from tenancy.errors import TenantNotFound

if TYPE_CHECKING:
    from tenancy import Tenancy, Tenant
    from tenancy.runner.failures import Failure
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
    health_port: Annotated[
        int | None,
        typer.Option(
            "--health-port",
            metavar="PORT",
            min=1,
            max=65535,
            help="Port to serve /live and /ready on; may be that of --metrics-port.",
            show_default=False,
        ),
    ] = None,
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
            start_tracing()
        _run(context, workers, lease_seconds, drain_seconds, _Ports(metrics_port, health_port, metrics_tenants))


class _Ports(NamedTuple):
    """The ports of the runner's HTTP servers, which may be one."""

    metrics: int | None
    health: int | None
    max_tenants: int
    """The most tenants with metrics of their own."""


def _run(context: typer.Context, workers: int, lease_seconds: float, drain_seconds: float, ports: _Ports) -> None:
    is_stopping = threading.Event()

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        is_stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with open_tenancy(context) as tenants, ExitStack() as resources:
        log.add_tenants(tenants)
        running = tenants.runner(workers, lease_seconds=lease_seconds)
        if ports.metrics is not None:
            measure_process(ports.max_tenants, tenants, running)
            if ports.metrics != ports.health:
                serve_metrics(ports.metrics)
        if ports.health is not None:
            from tenancy.cli.health_server import serve_health  # noqa: PLC0415 (slow)

            with_metrics = ports.metrics == ports.health
            resources.enter_context(serve_health(ports.health, tenants, lambda: running.is_alive, with_metrics))
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
        reacting = tenants.reactions.status() if slug is None and not json else ()
        slugs = slugs_of(tenants, reacting)
    if json:
        show_json([shapes.follower(each) for each in found])
        return
    header = ("tenant", "follower", "behind", "state", "lag", "per second", "owner", "failed at", "error")
    show_table(header, [_row(each) for each in found])
    if reacting:
        say()
        show_reactions(reacting, slugs)


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
    """Retry failing followers and reactions of one tenant or all."""
    if all_tenants == (slug is not None):
        msg = "No slug was given." if slug is None else "SLUG and --all are mutually exclusive."
        raise CommandError(msg, remedy="Pass SLUG, SLUG FOLLOWER, --all, or --all --follower NAME.")
    if follower is not None and name is not None:
        msg = "The follower is named twice: as FOLLOWER and by --follower."
        raise CommandError(msg, remedy="Omit one of them.")
    with open_tenancy(context) as tenants:
        which = follower or name
        wanted = None if slug is None else _tenant_or_purged(tenants, slug)
        is_reaction = which is not None and which in tenants.reactions
        failures: Sequence[Failure] = ()
        if not is_reaction and not isinstance(wanted, UUID):
            failures = tenants.followers.retry(wanted, which)
        reacting = tenants.reactions.retry(wanted, which) if is_reaction or which is None else ()
        ids = {each.tenant_id for each in failures} | {each.tenant_id for each in reacting}
        found = tenants.fleet.registry.get_many(list(ids))
    if json:
        show_json([*map(shapes.failure, failures), *map(shapes.reaction_failure, reacting)])
        return
    for each in reacting:
        of = quoted(found[each.tenant_id].slug) if each.tenant_id in found else "a purged tenant"
        say(f"{each.reaction} of {of} retries change {each.number}.")
    for failure in failures:
        tenant = found.get(failure.tenant_id)  # None when it has just been purged
        of = "a purged tenant" if tenant is None else quoted(tenant.slug)
        what = "" if failure.notification_id is None else f" notification {failure.notification_id}"
        say(f"{failure.follower} of {of} retries{what}.")
    if not (failures or reacting):
        of = "" if slug is None else f" of {quoted(slug if isinstance(wanted, UUID | None) else wanted.slug)}"
        say(f"No follower{of} is failing.")


def skip(
    context: typer.Context,
    slug: Slug,
    follower: _Follower,
    notification_id: Annotated[
        int,
        typer.Argument(
            metavar="ID",
            help="Notification that the follower fails at, or change that the reaction fails at: see tenancy runner "
            "status.",
        ),
    ],
    *,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Skip one notification permanently. The follower must be failing at it; the history records the skip.

    FOLLOWER may also name a reaction, and ID the change at which it fails.
    """
    with open_tenancy(context) as tenants:
        wanted = _tenant_or_purged(tenants, slug)
        if follower in tenants.reactions or isinstance(wanted, UUID):
            skipped = tenants.reactions.skip(wanted, follower, notification_id, actor=actor)
            shape, what = shapes.reaction_failure(skipped), f"change {notification_id}"
        else:
            failure = tenants.followers.skip(wanted, follower, notification_id, actor=actor)
            shape, what = shapes.failure(failure), f"notification {notification_id} of {failure.leader}"
    if json:
        show_json(shape)
    else:
        say(f"{follower} of {quoted(slug if isinstance(wanted, UUID) else wanted.slug)} skips {what}.")


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


def _tenant_or_purged(tenants: Tenancy, slug_or_id: str) -> Tenant | UUID:
    """Return a tenant, or the id of a purged one, for which a reaction may still fail."""
    try:
        return tenant_of(tenants, slug_or_id)
    except TenantNotFound:
        try:
            tenant_id = UUID(slug_or_id)
        except ValueError:
            tenant_id = None
        if tenant_id is None or not tenants.fleet.registry.history(tenant_id):
            raise
        return tenant_id


COMMANDS: Final[tuple[tuple[str, Callable[..., None], str], ...]] = (
    ("start", start, "tenancy --app shop:tenants runner start --workers 8"),
    ("status", status, "tenancy runner status --interval 1"),
    ("reactions", reactions, "tenancy runner reactions"),
    ("react", react, "tenancy --app shop:tenants runner react"),
    ("retry", retry, "tenancy runner retry acme Reports"),
    ("skip", skip, "tenancy runner skip acme Reports 4711"),
)
"""Name, function and example of each command."""

runner = typer.Typer(cls=Group, add_completion=False, rich_markup_mode=None, no_args_is_help=True)
for _name, _function, _example in COMMANDS:
    runner.command(_name, cls=Command, epilog=f"Example: {_example}")(_function)
