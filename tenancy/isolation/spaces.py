"""Names of the spaces in which a view is rebuilt, and in which its replaced tables are kept.

A space is a schema, or where the database has none, a prefix of table names. The name of a tenant's contains its id, so
that it belongs to one tenant whatever its placement, and a fixed number of characters for the projection.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.naming import TableName

__all__ = ["SpaceKind", "is_in_space_of", "space_across", "space_of", "spaces_start", "tenant_of_space"]

SpaceKind = Literal["rebuild", "replaced"]

_SPACE: Final = re.compile(r"(?P<space>(?:rebuild|replaced)_(?P<tenant>[0-9a-f]{32})_[0-9a-f]{6})(?:_.*)?", re.DOTALL)


def space_of(kind: SpaceKind, tenant_id: UUID, projection: str) -> str:
    """Return the name of the space for one projection of a tenant."""
    return f"{kind}_{tenant_id.hex}_{blake2b(projection.encode(), digest_size=3).hexdigest()}"


def space_across(kind: SpaceKind, schema: str, projection: str) -> str:
    """Return the name of the space for a projection over all tenants, whose view is in the schema of a registry.

    It does not name a tenant, so it is never taken for one's.
    """
    return f"{kind}_across_{blake2b(f'{schema}.{projection}'.encode(), digest_size=6).hexdigest()}"


def spaces_start(tenant_id: UUID) -> tuple[str, str]:
    """Return what the names of all spaces of a tenant start with."""
    return f"rebuild_{tenant_id.hex}_", f"replaced_{tenant_id.hex}_"


def is_in_space_of(tenant_id: UUID, name: TableName) -> bool:
    """Return whether a relation is in a space of a tenant."""
    return tenant_of_space(name)[1] == tenant_id


def tenant_of_space(name: TableName) -> tuple[str, UUID | None]:
    """Return the name of the space that a relation is in, and the tenant's id; "" and None for any other relation."""
    match = _SPACE.fullmatch(name.schema or "") or _SPACE.fullmatch(name.name)
    return (match["space"], UUID(match["tenant"])) if match else ("", None)
