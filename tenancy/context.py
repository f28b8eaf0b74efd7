"""The current tenant of a context: tasks and ``asyncio.to_thread`` inherit it; new threads have none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal
from uuid import UUID

from tenancy.errors import NoCurrentTenant

__all__ = ["creating", "current_id", "find_id", "is_creating", "operator_access", "scope"]


class _Frame:
    """One scope of a context; compared by identity."""

    __slots__ = ("is_left", "is_operator", "tenancy", "tenant_id")

    def __init__(self, tenancy: object, tenant_id: UUID | None, *, is_operator: bool) -> None:
        # Two Tenancy objects in one process have separate current tenants.
        self.tenancy = tenancy
        self.tenant_id = tenant_id
        self.is_operator = is_operator
        self.is_left = False


# The innermost scope comes last. Never changed in place: contexts share the object.
_frames: ContextVar[tuple[_Frame, ...]] = ContextVar("tenancy_current", default=())


def current_id(tenancy: object) -> UUID:
    """Return the id of this context's tenant; raises NoCurrentTenant outside a scope."""
    for frame in reversed(_frames.get()):
        if frame.tenancy is tenancy:
            if frame.tenant_id is None:
                break
            return frame.tenant_id
    msg = "There is no current tenant in this context."
    remedy = "Use `with tenants.scope(slug):`, or the middleware. A new thread starts without a tenant."
    raise NoCurrentTenant(msg, remedy=remedy)


def find_id(tenancy: object) -> UUID | None:
    """Return the id of this context's tenant, or None outside a scope."""
    for frame in reversed(_frames.get()):
        if frame.tenancy is tenancy:
            return frame.tenant_id
    return None


def operator_access(tenant_id: UUID) -> Literal["open", "left"] | None:
    """Return whether this context is in an operator's scope of a tenant, which allows reading only.

    Scopes inside of it do not lift that. A task may still have the scope as its current one when its parent has left
    it ("left"): it is not trusted to read any more, and may not write either.
    """
    frames = _frames.get()
    if not frames:
        return None
    if any(frame.is_operator and frame.tenant_id == tenant_id and not frame.is_left for frame in frames):
        return "open"
    last = frames[-1]
    return "left" if last.is_operator and last.tenant_id == tenant_id else None


class _Creation:
    """A tenant whose hooks run in this context, and in copies of it."""

    __slots__ = ("is_over", "tenant_id")

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.is_over = False


_creation: ContextVar[_Creation | None] = ContextVar("tenancy_creation", default=None)


@contextmanager
def creating(tenant_id: UUID) -> Iterator[None]:
    """Admit this context, in the block, to a tenant that does not serve yet: its hooks run."""
    creation = _Creation(tenant_id)
    token = _creation.set(creation)
    try:
        yield
    finally:
        creation.is_over = True  # for copies of the context, which outlive the block
        _creation.reset(token)


def is_creating(tenant_id: UUID) -> bool:
    """Return whether this context runs a hook of the tenant."""
    creation = _creation.get()
    return creation is not None and creation.tenant_id == tenant_id and not creation.is_over


@contextmanager
def scope(tenancy: object, tenant_id: UUID | None, *, is_operator: bool = False) -> Iterator[None]:
    """Make a tenant, or with None no tenant, the current one in the block; restore the previous one after it."""
    frame = _Frame(tenancy, tenant_id, is_operator=is_operator)
    _frames.set((*_worth_keeping(_frames.get()), frame))
    try:
        yield
    finally:
        frame.is_left = True
        # Remove this frame only, instead of restoring the old tuple: a generator may be closed in another context than
        # the one it started in, and after the scopes around it were left.
        _frames.set(tuple(each for each in _frames.get() if each is not frame))


def _worth_keeping(frames: tuple[_Frame, ...]) -> list[_Frame]:
    # A task keeps an inherited scope after its parent has left it. A server may start each request of a connection in
    # the previous request's context, so only the last of the left scopes is kept.
    last_left = {id(frame.tenancy): frame for frame in frames if frame.is_left}
    return [frame for frame in frames if not frame.is_left or last_left[id(frame.tenancy)] is frame]
