"""Lanes: the followers of views in another database have workers of their own, so that it delays no other follower."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from tenancy.runner.ready_queue import Key, ReadyQueue

if TYPE_CHECKING:
    from tenancy.storage.cross_tenant import CrossTenantProjection

__all__ = ["Lanes"]


class Lanes:
    """A ready queue for each lane, used as one by all but the workers. Safe to use from many threads.

    The main lane has all followers but those of projections over all tenants whose view has a URL. These have a lane
    for each URL.
    """

    def __init__(
        self, projections: Iterable[CrossTenantProjection], per_tenant: int, weight_of: Callable[[UUID], float]
    ) -> None:
        self.main = ReadyQueue(per_tenant, weight_of)
        by_url: dict[object, ReadyQueue] = {}
        self._by_follower = {
            each.name: by_url.setdefault(each.url, ReadyQueue(per_tenant, weight_of))
            for each in projections
            if each.url
        }
        self.others = tuple(by_url.values())
        """The queues of the other lanes."""

    def _of(self, key: Key) -> ReadyQueue:
        return self._by_follower.get(key[1], self.main)

    def __iter__(self) -> Iterator[ReadyQueue]:
        yield self.main
        yield from self.others

    def __len__(self) -> int:
        return sum(map(len, self))

    def is_main(self, follower: str) -> bool:
        """Return whether a follower is in the main lane."""
        return follower not in self._by_follower

    def views(self, projections: Iterable[CrossTenantProjection]) -> Iterator[tuple[str, list[str]]]:
        """Yield the followers of the views in each database, with the name of the activity that watches them."""
        beside = [each.name for each in projections if each.url is None]
        if beside:
            yield "views", beside
        for queue in self.others:
            names = sorted(name for name, each in self._by_follower.items() if each is queue)
            yield f"views of {', '.join(names)}", names

    def add(self, key: Key, leaders: Iterable[str]) -> None:
        """Enqueue a follower, to read these leaders."""
        self._of(key).add(key, leaders)

    def block(self, key: Key, leaders: Iterable[str], seconds: float) -> None:
        """Hold a follower back for some seconds, as :meth:`ReadyQueue.block` does."""
        self._of(key).block(key, leaders, seconds)

    def unblock(self, key: Key) -> None:
        """Enqueue a blocked follower now."""
        self._of(key).unblock(key)

    def drop(self, tenant_id: UUID) -> None:
        """Remove a tenant's followers; running slices continue."""
        for each in self:
            each.drop(tenant_id)

    def running(self) -> list[UUID]:
        """Return the tenants that have a follower running now in the main lane.

        Those of other lanes keep no tenant here: their database may not answer for long, and a process that takes over
        the tenant writes nothing twice.
        """
        return self.main.running()

    def close(self) -> None:
        """Hand out no more followers, and wake up all waiting workers."""
        for each in self:
            each.close()
