"""The verbs that make: init, create, adopt."""

from __future__ import annotations

import json as json_module
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy
from tenancy.cli.options import Actor, Json, Metadata, Name, NewSlug
from tenancy.cli.output import printable, quoted, say, show_json
from tenancy.cli.shapes import details, summary
from tenancy.errors import PartlyDone, TenancyError

if TYPE_CHECKING:
    from tenancy import Tenancy, Tenant, TenantRequest

__all__ = ["adopt", "create", "init"]


def init(
    context: typer.Context,
    *,
    accept_encodings: Annotated[
        bool,
        typer.Option(
            "--accept-encodings",
            help="Change the fleet to the ciphers and compressors of this process. They must read what is stored.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Make the registry, and record the applications of the code. Again, it records what has changed."""
    with open_tenancy(context) as tenants:
        tenants.init(accept_encodings=accept_encodings)
        applications = [application_spec.application for application_spec in tenants.application_specs()]
        where = str(tenants.fleet.registry)
    if json:
        show_json({"registry": where, "applications": applications})
        return
    say(f"Ready: {where}.")
    say(f"Applications: {', '.join(applications) or 'none yet. Record them: tenancy --app module:tenants init'}")


def create(
    context: typer.Context,
    slugs: Annotated[list[str] | None, typer.Argument(metavar="SLUG...", help="The slugs of the new tenants.")] = None,
    *,
    from_file: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Read more slugs from a file, or - for the standard input: one in a line. Blank lines and lines that "
            "begin with # are skipped.",
            show_default=False,
        ),
    ] = None,
    name: Name = None,
    metadata: Metadata = None,
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="Tenants that exist already are no error.")] = False,
    request_id: Annotated[
        str | None,
        typer.Option(
            "--request-id", metavar="ID", help="A retry with the same id returns the same tenant.", show_default=False
        ),
    ] = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Make tenants, each with its own tables. When one fails, the others are made all the same."""
    wanted = [*(slugs or ()), *(_slugs_of(from_file) if from_file is not None else ())]
    if not wanted:
        msg = "No slug was given."
        raise CommandError(msg, remedy="Give some, or --from FILE.")
    if len(wanted) > 1 and (name is not None or request_id is not None):
        msg = "--name and --request-id are for one tenant."
        raise CommandError(msg, remedy="Make that one by itself. To make many again after a failure: --exist-ok.")
    kept = _object_of(metadata)
    done = "Ready:" if exist_ok or request_id is not None else "Created"  # some may have been there
    with open_tenancy(context) as tenants, _progress(len(wanted)) as advance, _ctrl_c() as is_told_to_end:
        from tenancy import TenantRequest  # noqa: PLC0415 (slow; it is loaded by now)

        requests = [TenantRequest(slug=slug, name=name, metadata=kept, request_id=request_id) for slug in wanted]
        made, failures = _create(
            tenants, requests, actor, exist_ok=exist_ok, advance=advance, is_told_to_end=is_told_to_end
        )
    if json and (made or not failures):
        show_json([summary(tenant) for tenant in made])
    elif len(made) > _MANY:
        say(f"{done} {len(made)} tenants.")
    else:
        for tenant in made:
            say(f"{done} {quoted(tenant.slug)} in {printable(tenant.placement)}.")
    if len(wanted) == 1:
        for failure in failures.values():
            raise failure
    if failures:
        msg = f"Not created: {len(wanted) - len(made)} of {len(wanted)} tenants."
        if not made:
            raise CommandError(msg, code="failed", failures=failures.values())
        was_ended = any(getattr(failure, "tenant", None) is None for failure in failures.values())
        remedy = f"The others are ready. {_AGAIN}" if was_ended else "The others are ready."
        raise PartlyDone(msg, remedy=remedy, failures=failures)


# More than this are counted, not named.
_MANY = 20
_AGAIN = "For the rest: the same again with --exist-ok"


def _create(
    tenants: Tenancy,
    requests: Sequence[TenantRequest],
    actor: str | None,
    *,
    exist_ok: bool,
    advance: Callable[[], object],
    is_told_to_end: Callable[[], bool],
) -> tuple[list[Tenant], dict[str, Exception]]:
    """Make what can be made, and return it with the errors of the others by slug.

    ``is_told_to_end`` is asked before each batch. An error that is not about one tenant, such as a server that went
    away, ends it: it is raised if nothing was made.
    """
    from eventsourcing.persistence import PersistenceError  # noqa: PLC0415 (slow; it is loaded by now)

    from tenancy.model.slugs import normalize  # noqa: PLC0415 (as above)

    made: list[Tenant] = []
    failures: dict[str, Exception] = {}
    valid = []
    for request in requests:
        try:
            normalize(request.slug, tenants.settings.slugs)
        except TenancyError as error:
            failures[request.slug] = error
        else:
            valid.append(request)
    while valid and not is_told_to_end():
        done = 0
        try:
            wanted = takewhile(lambda _: not is_told_to_end(), valid)
            for tenant in tenants.create_many(wanted, actor=actor, exist_ok=exist_ok):
                made.append(tenant)
                done += 1
                advance()
        except (TenancyError, PersistenceError) as error:
            is_about_one = isinstance(error, TenancyError) and error.tenant is not None
            if not (is_about_one or made):
                raise
            failures[valid[done].slug] = error
            if not is_about_one:
                break
            done += 1
        valid = valid[done:]
    if valid and is_told_to_end():
        msg = f"Interrupted when {len(made)} of {len(requests)} tenants were made."
        raise CommandError(msg, remedy=_AGAIN, code="interrupted")
    return made, failures


def adopt(
    context: typer.Context,
    slug: NewSlug,
    *,
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema", metavar="TEMPLATE", help="Where the tables are; may hold {application}.", show_default=False
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(
            "--prefix", metavar="TEMPLATE", help="How their names begin; may hold {application}.", show_default=False
        ),
    ] = "",
    name: Name = None,
    metadata: Metadata = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Register tables that exist as a tenant. Nothing is copied or changed."""
    kept = _object_of(metadata)
    with open_tenancy(context) as tenants:
        tenant = tenants.adopt(slug, schema=schema, table_prefix=prefix, name=name, metadata=kept, actor=actor)
    if json:
        show_json(details(tenant))
    else:
        say(f"Adopted {quoted(tenant.slug)}; its tables stay where they are.")


def _slugs_of(path: str) -> list[str]:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except OSError as error:
        msg = f"{path!r} cannot be read: {error.strerror}."
        raise CommandError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path!r} is no text in UTF-8."
        raise CommandError(msg, remedy="Save it as UTF-8, one slug in a line.") from error
    return [line for line in lines if line and not line.startswith("#")]


def _object_of(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    from tenancy.registry.tables import check_metadata  # noqa: PLC0415 (slow; it is loaded next in any case)

    try:
        value = json_module.loads(text)
        check_metadata(value)
    except (ValueError, RecursionError) as error:
        msg = "--metadata is not an object of valid JSON. It cannot contain NaN, Infinity, NUL or lone surrogates."
        raise CommandError(msg, remedy="""Write it so: --metadata '{"plan": "gold"}'""") from error
    return cast("dict[str, Any]", value)


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether Ctrl-C was pressed; pressed again, it ends the command at once.

    An interrupt in the middle of a call of the database would leave a batch undone, and a traceback of the pool.
    """
    is_pressed = threading.Event()
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # a job in the background ignores it
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
    """Yield what moves a bar on a terminal, and does nothing elsewhere."""
    if total == 1 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 (slow, and --help needs no bar)
    from rich.progress import Progress  # noqa: PLC0415 (as above)

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Creating", total=total)
        yield lambda: bar.advance(task)
