"""The current tenant of a context: it follows into tasks and into ``asyncio.to_thread``, and is nobody elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID

from tenancy.errors import NoCurrentTenant

__all__ = ["current_id", "scope"]


class _Frame:
    """One scope that a context is in; compared by its identity."""

    __slots__ = ("is_left", "tenancy", "tenant_id")

    def __init__(self, tenancy: object, tenant_id: UUID | None) -> None:
        # So that one of two Tenancy objects in a process never takes the other's tenant.
        self.tenancy = tenancy
        self.tenant_id = tenant_id
        self.is_left = False


# The innermost scope comes last. Never changed in place: contexts share the object.
_frames: ContextVar[tuple[_Frame, ...]] = ContextVar("tenancy_current", default=())


def current_id(tenancy: object) -> UUID:
    """Return the id of the tenant of this context; raises NoCurrentTenant when there is none."""
    for frame in reversed(_frames.get()):
        if frame.tenancy is tenancy:
            if frame.tenant_id is None:
                break
            return frame.tenant_id
    msg = "There is no current tenant here."
    remedy = "Use `with tenants.scope(slug):`, or the middleware. A thread of your own begins without a tenant."
    raise NoCurrentTenant(msg, remedy=remedy)


@contextmanager
def scope(tenancy: object, tenant_id: UUID | None) -> Iterator[None]:
    """Make a tenant, or with None nobody, the current one inside of the block, and the one before after it."""
    frame = _Frame(tenancy, tenant_id)
    _frames.set((*_worth_keeping(_frames.get()), frame))
    try:
        yield
    finally:
        frame.is_left = True
        # Take away this one only, and not bring back what was there: a generator may be closed in another context than
        # it was started in, and after scopes that were around it have been left.
        _frames.set(tuple(each for each in _frames.get() if each is not frame))


def _worth_keeping(frames: tuple[_Frame, ...]) -> list[_Frame]:
    # What a task inherits stays its own after the task that it comes from has left it. A server may start each request
    # of a connection in the context of the one before, so of those only the last can be kept.
    last_left = {id(frame.tenancy): frame for frame in frames if frame.is_left}
    return [frame for frame in frames if not frame.is_left or last_left[id(frame.tenancy)] is frame]
