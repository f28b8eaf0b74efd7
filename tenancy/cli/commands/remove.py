"""The verbs that destroy: delete, which can be undone for a time, and purge, which cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tenancy.cli.commands.update import report
from tenancy.cli.errors import CommandError
from tenancy.cli.loader import open_tenancy, tenant_of
from tenancy.cli.options import Actor, DryRun, Json, Reason, Slug, Yes
from tenancy.cli.output import json_of, note, printable, quoted, say, show_json
from tenancy.cli.shapes import certificate as record_of
from tenancy.cli.shapes import details, summary

if TYPE_CHECKING:
    from tenancy import Tenancy, Tenant

__all__ = ["delete", "purge"]

# How a file is called that is the standard output.
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
    """Take a tenant off-line, to be purged when its grace is over. Until then, undelete brings it back."""
    with open_tenancy(context) as tenants:
        tenant = tenant_of(tenants, slug)
        if dry_run:
            if json:
                show_json(details(tenant))
            else:
                days = f"{tenants.settings.grace_days:g} days"
                say(f"Would delete {quoted(tenant.slug)}, which could be undeleted for {days}.")
            return
        _confirm("delete", [tenant.slug], yes=yes)
        tenant = tenants.delete(tenant, reason=reason, actor=actor)
    report(tenant, as_json=json)


def purge(
    context: typer.Context,
    slugs: Annotated[
        list[str] | None, typer.Argument(metavar="SLUG...", help="The slugs or ids of the tenants.")
    ] = None,
    *,
    due: Annotated[bool, typer.Option("--due", help="Purge all deleted tenants whose grace is over.")] = False,
    certificate: Annotated[
        str | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="Append the proof that nothing is left to a file, or write it to the standard output with -: a line "
            "of JSON for each tenant.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Remove tenants and all their data, now and for ever."""
    if bool(slugs) == due:
        msg = "Give either slugs or --due."
        raise CommandError(msg)
    if json and certificate == _STDOUT:
        msg = "--json and --certificate - both write to the standard output."
        raise CommandError(msg, remedy="Leave out one of them: both write the certificates.")
    tell = note if certificate == _STDOUT else say
    with open_tenancy(context) as tenants:
        found = tenants.due() if due else [tenant_of(tenants, slug) for slug in slugs or ()]
        purging = list({tenant.id: tenant for tenant in found}.values())
        if dry_run:
            _foretell(tenants, purging, as_json=json)
            return
        if purging:
            _confirm("purge", [tenant.slug for tenant in purging], yes=yes)
        records = []
        with _keeping(certificate) as keep:
            for proof in tenants.purge_many(purging, actor=actor):
                records.append(record_of(proof))
                keep(json_of(records[-1]))
                if not json:
                    what = f"{quoted(proof.slug)} ({proof.tenant_id})"
                    left = f"not the tenant's, and left: {', '.join(proof.others)}" if proof.others else "nothing left"
                    tell(f"Purged {what}: {_counted(proof.removed)} removed, {printable(left)}.")
    if json:
        show_json(records)
    elif not records:
        tell("No tenant is due.")


def _foretell(tenants: Tenancy, purging: Sequence[Tenant], *, as_json: bool) -> None:
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


def _confirm(verb: str, slugs: Sequence[str], *, yes: bool) -> None:
    """Return when somebody has typed what is to be destroyed, or has said so beforehand."""
    if yes:
        return
    if not sys.stdin.isatty():
        msg = f"Without a terminal, {verb} asks nobody and does nothing."
        raise CommandError(msg, remedy="Say that it is meant: --yes. See what it would do: --dry-run")
    if len(slugs) == 1:
        wanted, question = slugs[0], f"Type the slug {quoted(slugs[0])} to {verb} it: "
    else:
        wanted = f"{verb} {len(slugs)}"
        question = f"{', '.join(map(printable, slugs))}\nType '{wanted}' to {verb} these {len(slugs)} tenants: "
    sys.stderr.write(question)
    sys.stderr.flush()
    if sys.stdin.readline().strip() != wanted:
        msg = f"Something else was typed. Nothing was done: {verb} it again if it is meant."
        raise CommandError(msg, code="not_confirmed")


@contextmanager
def _keeping(path: str | None) -> Iterator[Callable[[str], object]]:
    """Yield what keeps a certificate at once. A file is opened before anything is removed; what is in it stays."""
    if path is None:
        yield lambda _: None
    elif path == _STDOUT:
        yield say
    else:
        try:
            file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 (only what this raises is about the path)
        except OSError as error:
            msg = f"{path!r} cannot be written: {error.strerror}. Nothing was purged."
            raise CommandError(msg) from error
        with file:
            yield lambda line: print(line, file=file, flush=True)
