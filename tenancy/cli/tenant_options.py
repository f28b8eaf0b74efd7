"""Options that choose tenants by what is known of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tenancy.cli.errors import CommandError
from tenancy.errors import InvalidArgument

if TYPE_CHECKING:
    from tenancy.registry.queries import Order, TenantQuery

__all__ = ["Limit", "Status", "Where", "conditions", "query_of"]

Status = Annotated[
    str | None,
    typer.Option("--status", metavar="STATUS", help="Only tenants with this status.", show_default=False),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Only tenants with this value in their metadata. Repeat it for several keys.",
        show_default=False,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="NUMBER", min=1, help="Maximum number of tenants.", show_default=False),
]


def conditions(where: Iterable[str] | None) -> dict[str, str]:
    """Return the values of ``--where``, by key of the metadata."""
    found = {}
    for text in where or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            msg = f"--where {text!r} is not of the form KEY=VALUE."
            raise CommandError(msg, remedy="Name a key of the metadata and its value: --where plan=free")
        found[key] = value
    return found


def query_of(
    status: str | None,
    where: Iterable[str] | None,
    *,
    created_after: str | None = None,
    order: str = "slug",
    limit: int | None = None,
    after: str | None = None,
) -> TenantQuery:
    """Return the query that the options describe; raises CommandError."""
    from tenancy.registry.queries import TenantQuery  # noqa: PLC0415 (slow: loads SQLAlchemy)

    since = None if created_after is None else _time_of("--created-after", created_after)
    try:
        return TenantQuery(
            status=status,
            where=conditions(where),
            created_after=since,
            order=cast("Order", order),
            limit=limit,
            after=after,
        )
    except InvalidArgument as error:
        raise CommandError(error.message, remedy=error.remedy) from None


def _time_of(option: str, text: str) -> datetime:
    """Parse the time of an option; without an offset, it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{option} {text!r} is not an ISO date or time."
        raise CommandError(msg, remedy=f"Pass one: {option} 2026-01-31, or {option} 2026-01-31T09:30+01:00") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
