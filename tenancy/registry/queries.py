"""Find tenants by status, metadata and time of creation, page by page.

Each page is a query of its own that starts after the last tenant of the page before, so that tenants which are created
or purged meanwhile neither shift the others nor repeat them, and memory holds one page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from uuid import UUID

import sqlalchemy as sa

from tenancy.arguments import check_type
from tenancy.errors import InvalidArgument
from tenancy.model.metadata import check_json, matches
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.registry.lookup import known_slug, not_found
from tenancy.registry.tables import to_tenant

if TYPE_CHECKING:
    from tenancy.registry.registry import Registry

__all__ = ["Order", "TenantQuery", "find_tenants"]

Order = Literal["slug", "-slug", "created", "-created"]
"""How tenants are ordered; with a dash, in reverse."""

_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantQuery:
    """Which tenants to find, and in which order; all conditions must hold. Raises InvalidArgument."""

    status: TenantStatus | str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    """Keys and values of the metadata. A text stands for this text, or for the value whose JSON it is."""
    created_after: datetime | None = None
    order: Order = "slug"
    limit: int | None = None
    after: Tenant | str | None = None
    """Where to continue: the last tenant of the page before, its slug, or when ordered by creation, its id."""

    def __post_init__(self) -> None:
        if self.status is not None and self.status not in set(TenantStatus):
            msg = f"There is no status {self.status!r}."
            raise InvalidArgument(msg, remedy=f"Pass one of: {', '.join(TenantStatus)}.")
        check_json("where", self.where)
        if self.order not in get_args(Order):
            msg = f"There is no order {self.order!r}."
            raise InvalidArgument(msg, remedy=f"Pass one of: {', '.join(get_args(Order))}.")
        check_type("limit", self.limit, (int, type(None)), "a number of tenants")
        if self.limit is not None and self.limit < 1:
            raise InvalidArgument("limit is less than 1.", remedy="Pass a number of tenants, or None for all.")
        check_type("created_after", self.created_after, (datetime, type(None)), "a datetime")
        if self.created_after is not None and self.created_after.utcoffset() is None:
            msg = "created_after has no time zone."
            raise InvalidArgument(msg, remedy="Pass one: datetime(2026, 1, 31, tzinfo=UTC)")
        check_type("after", self.after, (Tenant, str, type(None)), "a Tenant, or its slug or id as text")

    def accepts(self, tenant: Tenant) -> bool:
        """Return whether a tenant fulfils the conditions."""
        if self.status not in (None, tenant.status):
            return False
        if self.created_after is not None and tenant.created_at <= self.created_after:
            return False
        return matches(tenant.metadata, self.where)


def find_tenants(registry: Registry, query: TenantQuery) -> Iterator[Tenant]:
    """Yield the tenants that a query is about; raises TenantNotFound for an unknown id to continue after.

    A tenant that exists all the time is found exactly once, unless it is renamed while tenants are found in slug order.
    """
    # The databases compare JSON differently, so the metadata is compared here.
    size = _PAGE if query.where else min(_PAGE, query.limit or _PAGE)
    position = _position(registry, query)
    found = 0
    while True:
        page = _page(registry, query, position, size)
        for tenant in page:
            if matches(tenant.metadata, query.where):
                yield tenant
                found += 1
                if found == query.limit:
                    return
        if len(page) < size:
            return
        position = _key(query, page[-1])


def _page(registry: Registry, query: TenantQuery, position: tuple[Any, ...] | None, size: int) -> list[Tenant]:
    tenants = registry.rows.tenants
    columns = [tenants.c.slug] if query.order.endswith("slug") else [tenants.c.created_at, tenants.c.id]
    is_reversed = query.order.startswith("-")
    select = sa.select(tenants).order_by(*(each.desc() if is_reversed else each for each in columns)).limit(size)
    if query.status is not None:
        select = select.where(tenants.c.status == str(query.status))
    if query.created_after is not None:
        select = select.where(tenants.c.created_at > query.created_after)
    if position is not None:
        select = select.where(_is_behind(columns, position, is_reversed=is_reversed))
    with registry.reading() as session:
        return [to_tenant(row) for row in session.execute(select)]


def _is_behind(
    columns: list[sa.Column[Any]], position: tuple[Any, ...], *, is_reversed: bool
) -> sa.ColumnElement[bool]:
    """Return the condition for rows after a position, by the first column, and where it is equal by the second."""
    first, *rest = columns
    condition: sa.ColumnElement[bool] = first < position[0] if is_reversed else first > position[0]
    if not rest:
        return condition
    is_equal = first == position[0]
    return sa.or_(condition, sa.and_(is_equal, _is_behind(rest, position[1:], is_reversed=is_reversed)))


def _key(query: TenantQuery, tenant: Tenant) -> tuple[Any, ...]:
    return (tenant.slug,) if query.order.endswith("slug") else (tenant.created_at, tenant.id)


def _position(registry: Registry, query: TenantQuery) -> tuple[Any, ...] | None:
    """Return the key of the tenant to continue after, which may have been purged since, or None."""
    if query.after is None or isinstance(query.after, Tenant):
        return None if query.after is None else _key(query, query.after)
    if query.order.endswith("slug"):
        return (known_slug(query.after),)
    try:
        tenant_id = UUID(query.after)
    except ValueError:
        msg = "Tenants that are ordered by creation continue after an id: a slug says nothing about their order."
        raise InvalidArgument(msg, remedy="Pass the last tenant's id.") from None
    with registry.reading() as session:
        for table in (registry.rows.tenants, registry.rows.tombstones):
            created_at = session.scalar(sa.select(table.c.created_at).where(table.c.id == tenant_id))
            if created_at is not None:
                return (created_at, tenant_id)
    raise not_found(query.after)
