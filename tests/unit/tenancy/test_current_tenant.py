"""Scopes of the current tenant: nested, closed out of order, and inherited."""

from __future__ import annotations

import contextvars
from collections.abc import Generator
from typing import TYPE_CHECKING, cast
from uuid import UUID, uuid4

from tenancy import context
from tenancy.errors import NoCurrentTenant

if TYPE_CHECKING:
    from tenancy.tenancy import Tenancy

TENANTS, OTHERS = (cast("Tenancy", object()) for _ in range(2))
ACME, GLOBEX = uuid4(), uuid4()


def current(tenancy: Tenancy = TENANTS) -> UUID | None:
    try:
        return context.current_id(tenancy)
    except NoCurrentTenant:
        return None


def scoped(tenant_id: UUID) -> Generator[UUID | None, None, None]:
    """Yield inside a scope, which is a mistake."""
    with context.scope(TENANTS, tenant_id):
        yield current()


def test_the_innermost_scope_counts() -> None:
    assert current() is None
    with context.scope(TENANTS, ACME):
        with context.scope(TENANTS, GLOBEX):
            assert current() == GLOBEX
        assert current() == ACME
        with context.scope(TENANTS, None):
            assert current() is None
        assert current() == ACME
    assert current() is None


def test_another_tenancy_has_its_own_current_tenant() -> None:
    with context.scope(TENANTS, ACME):
        assert current(OTHERS) is None
        with context.scope(OTHERS, GLOBEX):
            assert (current(), current(OTHERS)) == (ACME, GLOBEX)
        assert (current(), current(OTHERS)) == (ACME, None)


def test_a_generator_closed_late_restores_no_tenant() -> None:
    with context.scope(TENANTS, ACME):
        generator = scoped(GLOBEX)
        assert next(generator) == GLOBEX
    generator.close()
    assert current() is None


def test_a_generator_closed_elsewhere_unsets_no_tenant() -> None:
    generator = scoped(GLOBEX)
    contextvars.copy_context().run(next, generator)
    with context.scope(TENANTS, ACME):
        generator.close()
        assert current() == ACME


def test_an_inherited_tenant_outlives_the_scope() -> None:
    with context.scope(TENANTS, ACME):
        inherited = contextvars.copy_context()
    assert inherited.run(current) == ACME

    def use_another() -> None:
        with context.scope(TENANTS, GLOBEX), context.scope(TENANTS, None):
            assert current() is None

    inherited.run(use_another)
    assert inherited.run(current) == ACME


def test_a_chain_of_contexts_does_not_grow() -> None:
    def enter(tenant_id: UUID) -> contextvars.Context:
        with context.scope(TENANTS, tenant_id), context.scope(OTHERS, tenant_id):
            return contextvars.copy_context()

    chain = contextvars.copy_context()
    for _ in range(20):
        tenant_id = uuid4()
        chain = chain.run(enter, tenant_id)
        assert chain.run(current) == tenant_id
    assert len(chain[context._frames]) <= 4  # noqa: SLF001 (internal)
