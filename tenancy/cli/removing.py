"""The verbs that destroy: delete, which can be undone for a time, and purge, which cannot."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from tenancy.cli.changing import report
from tenancy.cli.failures import CommandError
from tenancy.cli.fleet import the_fleet
from tenancy.cli.options import Actor, DryRun, Json, Reason, Slug, Yes
from tenancy.cli.output import printable, quoted, say, show_json
from tenancy.cli.records import certificate as record_of
from tenancy.cli.records import details, summary

if TYPE_CHECKING:
    from tenancy import Tenancy, Tenant

__all__ = ["delete", "purge"]


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
    with the_fleet(context) as tenants:
        tenant = tenants[slug]
        if dry_run:
            if json:
                show_json(details(tenant))
            else:
                days = f"{tenants.settings.grace_days:g} days"
                say(f"Would delete {quoted(tenant.slug)}, which could be undeleted for {days}.")
            return
        _confirm("delete", [tenant.slug], yes=yes)
        tenant = tenants.delete(slug, reason=reason, actor=actor)
    report(tenant, as_json=json)


def purge(
    context: typer.Context,
    slugs: Annotated[list[str] | None, typer.Argument(metavar="SLUG...", help="The slugs of the tenants.")] = None,
    *,
    due: Annotated[bool, typer.Option("--due", help="Purge all deleted tenants whose grace is over.")] = False,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="Append the proof that nothing is left: a line of JSON for each tenant.",
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
    with the_fleet(context) as tenants:
        doomed = tenants.due() if due else [tenants[slug] for slug in dict.fromkeys(slugs or ())]
        if dry_run:
            _foretell(tenants, doomed, as_json=json)
            return
        if doomed:
            _confirm("purge", [tenant.slug for tenant in doomed], yes=yes)
        records = []
        with _opened(certificate) as file:
            for proof in tenants.purge_many(doomed, actor=actor):
                records.append(record_of(proof))
                if file is not None:
                    file.write(json_module.dumps(records[-1]) + "\n")
                    file.flush()
                if not json:
                    what = f"{quoted(proof.slug)} ({proof.tenant_id})"
                    left = f"not the tenant's, and left: {', '.join(proof.others)}" if proof.others else "nothing left"
                    say(f"Purged {what}: {_counted(proof.removed)} removed, {printable(left)}.")
    if json:
        show_json(records)
    elif not records:
        say("No tenant is due.")


def _foretell(tenants: Tenancy, doomed: Sequence[Tenant], *, as_json: bool) -> None:
    contents = [tenants.places.contents(tenant, tenants.blueprints()).count() for tenant in doomed]
    if as_json:
        show_json([{**summary(tenant), "would_remove": count} for tenant, count in zip(doomed, contents, strict=True)])
        return
    for tenant, count in zip(doomed, contents, strict=True):
        say(f"Would purge {quoted(tenant.slug)}: {_counted(count)}.")
    if not doomed:
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
def _opened(path: Path | None) -> Iterator[TextIO | None]:
    """Yield the file for certificates, before anything is removed; what is in it already stays."""
    if path is None:
        yield None
        return
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        msg = f"{str(path)!r} cannot be written: {error.strerror}. Nothing was purged."
        raise CommandError(msg) from error
    with file:
        yield file
