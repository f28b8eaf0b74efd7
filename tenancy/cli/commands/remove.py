"""The commands delete, which can be undone until the purge, and purge, which cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tenancy.cli.completion import complete_slug
from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Actor, DryRun, Json, Reason, Slug, Yes
from tenancy.cli.output import json_of, note, printable, quoted, say, show_json, show_status
from tenancy.cli.shapes import certificate as record_of
from tenancy.cli.shapes import details, summary

if TYPE_CHECKING:
    from tenancy import Tenancy, Tenant

__all__ = ["delete", "purge"]

# The file name that stands for standard output.
_STDOUT: Final = "-"


def delete(
    context: typer.Context,
    slug: Slug,
    *,
    reason: Reason = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Take a tenant offline, to be purged after its grace period. Until it is purged, undelete restores it."""
    with open_tenancy(context) as tenants:
        tenant = tenant_of(tenants, slug)
        if dry_run:
            if json:
                show_json(details(tenant))
            else:
                days = f"{tenants.settings.grace_days:g} days"
                say(f"Would delete {quoted(tenant.slug)}. Its grace period would be {days}.")
            return
        _confirm("delete", [tenant.slug], yes=yes)
        tenant = tenants.delete(tenant, reason=reason, actor=actor)
    show_status(tenant, as_json=json)


def purge(
    context: typer.Context,
    slugs: Annotated[
        list[str] | None,
        typer.Argument(metavar="SLUG...", help="Slugs or ids of the tenants.", autocompletion=complete_slug),
    ] = None,
    *,
    due: Annotated[bool, typer.Option("--due", help="Purge all deleted tenants whose grace period is over.")] = False,
    certificate: Annotated[
        str | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="Append the purge certificates to a file, or write them to standard output (-): one line of JSON per "
            "tenant.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Remove tenants and all their data permanently."""
    if bool(slugs) == due:
        msg = "Exactly one of SLUG and --due is required."
        raise CommandError(msg, remedy="Pass slugs, or --due.")
    if json and certificate == _STDOUT:
        msg = "--json and --certificate - both write to standard output."
        raise CommandError(msg, remedy="Omit one of them: both write the certificates.")
    tell = note if certificate == _STDOUT else say
    with open_tenancy(context) as tenants:
        found = tenants.due() if due else [tenant_of(tenants, slug) for slug in slugs or ()]
        purging = list({tenant.id: tenant for tenant in found}.values())
        if dry_run:
            _preview(tenants, purging, as_json=json)
            return
        if purging:
            _confirm("purge", [tenant.slug for tenant in purging], yes=yes)
        records = []
        with _certificate_writer(certificate) as write:
            for proof in tenants.purge_many(purging, actor=actor):
                records.append(record_of(proof))
                write(json_of(records[-1]))
                if not json:
                    what = f"{quoted(proof.slug)} ({proof.tenant_id})"
                    left = (
                        f"kept (not owned by the tenant): {', '.join(proof.others)}" if proof.others else "nothing left"
                    )
                    tell(f"Purged {what}: {_counted(proof.removed)} removed, {printable(left)}.")
    if json:
        show_json(records)
    elif not records:
        tell("No tenant is due.")


def _preview(tenants: Tenancy, purging: Sequence[Tenant], *, as_json: bool) -> None:
    inventory = [tenants.fleet.inventory.of_tenant(tenant, tenants.application_specs()).count() for tenant in purging]
    if as_json:
        show_json(
            [{**summary(tenant), "would_remove": count} for tenant, count in zip(purging, inventory, strict=True)]
        )
        return
    for tenant, count in zip(purging, inventory, strict=True):
        say(f"Would purge {quoted(tenant.slug)}: {_counted(count)}.")
    if not purging:
        say("No tenant is due.")


def _counted(counts: Mapping[str, int]) -> str:
    there = {kind: number for kind, number in counts.items() if number}
    return ", ".join(f"{number} {kind[:-1] if number == 1 else kind}" for kind, number in there.items()) or "no tables"


def _confirm(command: str, slugs: Sequence[str], *, yes: bool) -> None:
    """Return when the user has typed what to destroy, or has passed ``--yes``."""
    if yes:
        return
    if not sys.stdin.isatty():
        msg = f"Refusing to {command} without a terminal."
        raise CommandError(msg, remedy="Pass --yes to confirm, or --dry-run to preview.")
    if len(slugs) == 1:
        wanted, question = slugs[0], f"Type the slug {quoted(slugs[0])} to {command} it: "
    else:
        wanted = f"{command} {len(slugs)}"
        question = f"{', '.join(map(printable, slugs))}\nType '{wanted}' to {command} these {len(slugs)} tenants: "
    sys.stderr.write(question)
    sys.stderr.flush()
    if sys.stdin.readline().strip() != wanted:
        msg = f"Confirmation did not match. Nothing was {command}d."
        raise CommandError(
            msg, remedy="Run the command again, and type exactly what it asks for.", code="not_confirmed"
        )


@contextmanager
def _certificate_writer(path: str | None) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes a certificate at once. A file is opened for appending before anything is removed."""
    if path is None:
        yield lambda _: None
    elif path == _STDOUT:
        yield say
    else:
        try:
            file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 (an OSError of the block is not about the path)
        except OSError as error:
            msg = f"{path!r} cannot be written: {error.strerror}. Nothing was purged."
            raise CommandError(msg) from error
        with file:
            yield lambda line: print(line, file=file, flush=True)
