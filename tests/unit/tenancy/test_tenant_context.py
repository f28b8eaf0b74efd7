"""The current tenant is inherited by tasks and copied contexts, unset in new threads, and ends with its block."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from tenancy.context import current_id, scope
from tenancy.errors import NoCurrentTenant


class Fleet:
    """A stand-in for a Tenancy object: the context only needs its identity."""


@pytest.fixture
def fleet() -> Any:
    return Fleet()


ONE, TWO = uuid4(), uuid4()


def current(fleet: Any) -> UUID | None:
    try:
        return current_id(fleet)
    except NoCurrentTenant:
        return None


def test_scopes_nest(fleet: Any) -> None:
    assert current(fleet) is None
    with scope(fleet, ONE):
        assert current(fleet) == ONE
        with scope(fleet, TWO):
            assert current(fleet) == TWO
        assert current(fleet) == ONE
    assert current(fleet) is None


def test_scope_ends_with_an_error(fleet: Any) -> None:
    with pytest.raises(ZeroDivisionError), scope(fleet, ONE):
        raise ZeroDivisionError
    assert current(fleet) is None


def test_two_fleets_are_independent(fleet: Any) -> None:
    other = cast("Any", Fleet())
    with scope(fleet, ONE):
        assert current(other) is None
        with scope(other, TWO):
            assert (current(fleet), current(other)) == (ONE, TWO)
        assert current(fleet) == ONE


def test_thread_begins_without_a_tenant(fleet: Any) -> None:
    seen: list[UUID | None] = []
    with scope(fleet, ONE):
        thread = threading.Thread(target=lambda: seen.append(current(fleet)))
        thread.start()
        thread.join()
    assert seen == [None]


def test_tenant_follows_into_tasks_and_threads_of_asyncio(fleet: Any) -> None:
    async def task(tenant: UUID) -> list[UUID | None]:
        with scope(fleet, tenant):
            await asyncio.sleep(0)
            in_thread = await asyncio.to_thread(current, fleet)
            child = await asyncio.create_task(asyncio.to_thread(current, fleet))
            return [current(fleet), in_thread, child]

    async def main() -> list[list[UUID | None]]:
        return await asyncio.gather(*(task(tenant) for tenant in tenants))

    tenants = [uuid4() for _ in range(20)]
    assert asyncio.run(main()) == [[tenant] * 3 for tenant in tenants]
    assert current(fleet) is None


def held(fleet: Any, tenant: UUID) -> Iterator[None]:
    with scope(fleet, tenant):
        yield


def test_scopes_that_end_out_of_order(fleet: Any) -> None:
    first, second = held(fleet, ONE), held(fleet, TWO)
    next(first)
    next(second)
    first.close()  # type: ignore[attr-defined]
    assert current(fleet) == TWO
    second.close()  # type: ignore[attr-defined]
    assert current(fleet) is None, "not the tenant whose turn is over"


def test_scope_closed_in_another_context_sets_no_tenant(fleet: Any) -> None:
    with scope(fleet, ONE):
        inner = contextvars.copy_context()
        generator = held(fleet, TWO)
        inner.run(next, generator)
    # An event loop closes abandoned generators in this way.
    generator.close()  # type: ignore[attr-defined]
    assert current(fleet) is None
    assert inner.run(current, fleet) == TWO


def test_scope_closed_in_another_context_unsets_no_tenant(fleet: Any) -> None:
    generator = held(fleet, ONE)
    contextvars.copy_context().run(next, generator)
    with scope(fleet, TWO):
        generator.close()  # type: ignore[attr-defined]
        assert current(fleet) == TWO


def test_generator_of_asyncio_that_is_never_finished(fleet: Any) -> None:
    async def pages() -> AsyncIterator[UUID | None]:
        with scope(fleet, ONE):
            while True:
                yield current(fleet)

    async def main() -> UUID | None:
        async for page in pages():
            assert page == ONE
            break
        gc.collect()
        await asyncio.sleep(0)
        return current(fleet)

    # The scope is active in the iterating context until the generator ends.
    assert asyncio.run(main()) in (None, ONE)
    assert current(fleet) is None


def test_message_names_the_remedy(fleet: Any) -> None:
    with pytest.raises(NoCurrentTenant, match=r"with tenants\.scope"):
        current_id(fleet)
