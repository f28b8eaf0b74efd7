"""The current tenant of a context: it follows into tasks and into ``asyncio.to_thread``, and is nobody elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID

from tenancy.errors import NoCurrentTenant

if TYPE_CHECKING:
    from tenancy.tenancy import Tenancy

__all__ = ["current_id", "scope"]

# By the identity of the Tenancy object, so that one of two in a process never takes the other's tenant. Never changed
# in place: contexts share the object.
_current: ContextVar[Mapping[int, UUID]] = ContextVar("tenancy_current", default=MappingProxyType({}))


def current_id(tenancy: Tenancy) -> UUID:
    """Return the id of the tenant of this context; raises NoCurrentTenant when there is none."""
    try:
        return _current.get()[id(tenancy)]
    except KeyError:
        msg = "There is no current tenant here."
        remedy = "Use `with tenants.scope(slug):`, or the middleware. A thread of your own begins without a tenant."
        raise NoCurrentTenant(msg, remedy=remedy) from None


@contextmanager
def scope(tenancy: Tenancy, tenant_id: UUID) -> Iterator[None]:
    """Make a tenant the current one inside of the block, and nobody or the one before after it."""
    before = _current.get().get(id(tenancy))
    _current.set(MappingProxyType({**_current.get(), id(tenancy): tenant_id}))
    try:
        yield
    finally:
        # Not Token.reset: a generator may be closed in another context than it was started in.
        others = {key: value for key, value in _current.get().items() if key != id(tenancy)}
        _current.set(MappingProxyType(others if before is None else {**others, id(tenancy): before}))
