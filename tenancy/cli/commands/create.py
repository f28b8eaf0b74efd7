"""The command create."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Actor, Json, Metadata, Name, json_object
from tenancy.cli.output import printable, quoted, say, show_json
from tenancy.cli.shapes import summary
from tenancy.errors import PartlyDone, TenancyError

if TYPE_CHECKING:
    from tenancy import Tenancy, Tenant, TenantRequest

__all__ = ["create"]


def create(
    context: typer.Context,
    slugs: Annotated[list[str] | None, typer.Argument(metavar="SLUG...", help="Slugs of the new tenants.")] = None,
    *,
    from_file: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Read more slugs from a file, or from standard input (-): one per line. Blank lines and lines that "
            "start with # are skipped.",
            show_default=False,
        ),
    ] = None,
    name: Name = None,
    metadata: Metadata = None,
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="Accept active tenants that already exist.")] = False,
    request_id: Annotated[
        str | None,
        typer.Option(
            "--request-id",
            metavar="ID",
            help="Idempotency key: a retry with the same id returns the same tenant.",
            show_default=False,
        ),
    ] = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Create tenants, each with its own tables. If one fails, the others are still created."""
    wanted = [*(slugs or ()), *(_slugs_of(from_file) if from_file is not None else ())]
    if not wanted:
        msg = "No slug was given."
        raise CommandError(msg, remedy="Pass slugs, or --from FILE.")
    if len(wanted) > 1 and (name is not None or request_id is not None):
        msg = "--name and --request-id apply to a single tenant."
        raise CommandError(msg, remedy="Create that tenant separately. To retry many tenants, use --exist-ok.")
    parsed = json_object("--metadata", metadata)
    done = "Ready:" if exist_ok or request_id is not None else "Created"  # some may have existed
    with open_tenancy(context) as tenants, _progress(len(wanted)) as advance, _ctrl_c() as is_interrupted:
        from tenancy import TenantRequest  # noqa: PLC0415 (slow; loaded by now)

        requests = [TenantRequest(slug=slug, name=name, metadata=parsed, request_id=request_id) for slug in wanted]
        created, failures = _create(
            tenants, requests, actor, exist_ok=exist_ok, advance=advance, is_interrupted=is_interrupted
        )
    if json and (created or not failures):
        show_json([summary(tenant) for tenant in created])
    elif len(created) > _MANY:
        say(f"{done} {len(created)} tenants.")
    else:
        for tenant in created:
            say(f"{done} {quoted(tenant.slug)} in {printable(tenant.placement)}.")
    if len(wanted) == 1:
        for failure in failures.values():
            raise failure
    if failures:
        msg = f"Not created: {len(wanted) - len(created)} of {len(wanted)} tenants."
        if not created:
            raise CommandError(msg, code="failed", failures=failures.values())
        was_stopped = any(getattr(failure, "tenant", None) is None for failure in failures.values())
        remedy = f"The others are ready. {_RETRY}" if was_stopped else "The others are ready."
        raise PartlyDone(msg, remedy=remedy, failures=failures)


# More tenants than this are counted, not listed.
_MANY = 20
_RETRY = "Repeat the command with --exist-ok."


def _create(
    tenants: Tenancy,
    requests: Sequence[TenantRequest],
    actor: str | None,
    *,
    exist_ok: bool,
    advance: Callable[[], object],
    is_interrupted: Callable[[], bool],
) -> tuple[list[Tenant], dict[str, Exception]]:
    """Create tenants; return those that were created, and the errors of the others by slug.

    ``is_interrupted`` is checked before each batch. An error that is not about one tenant, such as a lost server, stops
    the run; it is raised if no tenant was created.
    """
    from eventsourcing.persistence import PersistenceError  # noqa: PLC0415 (slow; loaded by now)

    from tenancy.registry.lookup import new_slug  # noqa: PLC0415 (as above)

    created: list[Tenant] = []
    failures: dict[str, Exception] = {}
    valid = []
    for request in requests:
        try:
            new_slug(tenants.fleet.registry, tenants.settings, request.slug)
        except TenancyError as error:
            failures[request.slug] = error
        else:
            valid.append(request)
    while valid and not is_interrupted():
        done = 0
        try:
            wanted = takewhile(lambda _: not is_interrupted(), valid)
            for tenant in tenants.create_many(wanted, actor=actor, exist_ok=exist_ok):
                created.append(tenant)
                done += 1
                advance()
        except (TenancyError, PersistenceError) as error:
            is_about_one = isinstance(error, TenancyError) and error.tenant is not None
            if not (is_about_one or created):
                raise
            failures[valid[done].slug] = error
            if not is_about_one:
                break
            done += 1
        valid = valid[done:]
    if valid and is_interrupted():
        msg = f"Interrupted after creating {len(created)} of {len(requests)} tenants."
        raise CommandError(msg, remedy=_RETRY, code="interrupted")
    return created, failures


def _slugs_of(path: str) -> list[str]:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except OSError as error:
        msg = f"{path!r} cannot be read: {error.strerror}."
        raise CommandError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path!r} is not UTF-8 text."
        raise CommandError(msg, remedy="Save it as UTF-8, one slug per line.") from error
    return [line for line in lines if line and not line.startswith("#")]


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C was pressed. Pressed again, Ctrl-C ends the command at once.

    An interrupt in the middle of a database call would leave a batch incomplete, and a traceback of the pool.
    """
    is_pressed = threading.Event()
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # background jobs ignore SIGINT
        yield is_pressed.is_set
        return

    def press(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler)
        is_pressed.set()

    signal.signal(signal.SIGINT, press)
    try:
        yield is_pressed.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yield a function that advances a progress bar on a terminal, and does nothing elsewhere."""
    if total == 1 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 (slow; not needed by --help)
    from rich.progress import Progress  # noqa: PLC0415 (as above)

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Creating", total=total)
        yield lambda: bar.advance(task)
