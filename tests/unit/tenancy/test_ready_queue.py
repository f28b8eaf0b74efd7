"""The ready queue is fair, runs each follower once at a time, and holds blocked followers back."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable
from uuid import UUID, uuid4

import pytest

from tenancy.following.pipes import Pipe, Pipes
from tenancy.runner.ready_queue import ReadyQueue
from tests.support.deadlines import wait_until

ONE, TWO, THREE = uuid4(), uuid4(), uuid4()


def taken(queue: ReadyQueue) -> tuple[UUID, str, set[str]]:
    found = queue.take()
    assert found is not None
    (tenant_id, follower), leaders = found
    return tenant_id, follower, leaders


def test_first_in_first_out_without_duplicates() -> None:
    queue = ReadyQueue(1)
    for tenant_id, leader in ((ONE, "A"), (TWO, "A"), (ONE, "B"), (ONE, "A")):
        queue.add((tenant_id, "F"), (leader,))
    assert taken(queue) == (ONE, "F", {"A", "B"})
    assert taken(queue) == (TWO, "F", {"A"})
    assert len(queue) == 0


def test_follower_with_more_work_goes_to_the_end() -> None:
    queue = ReadyQueue(1)
    for tenant_id in (ONE, TWO, THREE):
        queue.add((tenant_id, "F"), ("A",))
    assert taken(queue)[0] == ONE
    queue.done((ONE, "F"), ("A",))
    order = []
    for _ in range(3):
        tenant_id = taken(queue)[0]
        order.append(tenant_id)
        queue.done((tenant_id, "F"))
    assert order == [TWO, THREE, ONE]


def shares(queue: ReadyQueue, tenants: Iterable[UUID], slices: int, workers: int = 1) -> Counter[UUID]:
    """Return how many slices each tenant gets while all have more work than there are slices."""
    for tenant_id in tenants:
        queue.add((tenant_id, "F"), ("A",))
    running, found = [], Counter[UUID]()
    for _ in range(slices):
        tenant_id = taken(queue)[0]
        found[tenant_id] += 1
        running.append(tenant_id)
        if len(running) == workers:
            queue.done((running.pop(0), "F"), ("A",))
    for tenant_id in running:
        queue.done((tenant_id, "F"))
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_slices_are_shared_by_weight(workers: int) -> None:
    weights = {ONE: 1.0, TWO: 3.0, THREE: 0.5}
    queue = ReadyQueue(1, weights.__getitem__)
    tenants = [*weights] if workers == 1 else [*weights, *(others := [uuid4(), uuid4()])]
    if workers == 2:
        weights |= dict.fromkeys(others, 2.0)  # otherwise the heaviest would need more than one of the workers
    found = shares(queue, tenants, int(100 * sum(weights.values())), workers)
    assert all(abs(found[each] - 100 * weight) <= 2 for each, weight in weights.items())


def test_equal_weights_take_turns() -> None:
    queue = ReadyQueue(1, lambda _: 0.01)
    for tenant_id in (ONE, TWO, THREE):
        queue.add((tenant_id, "F"), ("A",))
    order = []
    for _ in range(6):
        order.append(taken(queue)[0])
        queue.done((order[-1], "F"), ("A",))
    assert order == [ONE, TWO, THREE] * 2


def test_changed_weight_counts_from_the_next_slice() -> None:
    weights = {ONE: 1.0, TWO: 1.0}
    queue = ReadyQueue(1, weights.__getitem__)
    assert shares(queue, weights, 100) == {ONE: 50, TWO: 50}
    weights[ONE] = 4.0
    assert abs(shares(queue, weights, 100)[ONE] - 80) <= 1


def test_idle_time_earns_no_turns() -> None:
    queue = ReadyQueue(1)
    shares(queue, [ONE], 1000)
    found = shares(queue, [ONE, TWO], 100)
    assert abs(found[TWO] - 50) <= 1


def test_slow_slice_earns_one_turn() -> None:
    queue = ReadyQueue(1)
    for tenant_id in (ONE, TWO):
        queue.add((tenant_id, "F"), ("A",))
    assert taken(queue)[0] == ONE
    for _ in range(100):
        assert taken(queue)[0] == TWO
        queue.done((TWO, "F"), ("A",))
    queue.done((ONE, "F"), ("A",))
    order = []
    for _ in range(6):
        order.append(taken(queue)[0])
        queue.done((order[-1], "F"), ("A",))
    assert abs(order.count(ONE) - order.count(TWO)) <= 2


def test_light_tenant_is_served_next_however_heavy_the_others_are() -> None:
    queue = ReadyQueue(1, {ONE: 100.0, TWO: 0.01}.__getitem__)
    shares(queue, [ONE], 1000)
    queue.add((ONE, "F"), ("A",))
    taken(queue)
    queue.done((ONE, "F"), ("A",))
    queue.add((TWO, "F"), ("A",))
    assert taken(queue)[0] == TWO


def test_wake_up_during_a_slice_enqueues_another_one() -> None:
    queue = ReadyQueue(1)
    queue.add((ONE, "F"), ("A",))
    taken(queue)
    queue.add((ONE, "F"), ("B",))
    assert len(queue) == 0  # never two at once
    queue.done((ONE, "F"))
    assert taken(queue) == (ONE, "F", {"B"})


def test_limit_per_tenant() -> None:
    queue = ReadyQueue(2)
    for follower in ("F", "G", "H"):
        queue.add((ONE, follower), ("A",))
    queue.add((TWO, "F"), ("A",))
    assert [taken(queue)[:2] for _ in range(3)] == [(ONE, "F"), (ONE, "G"), (TWO, "F")]
    queue.done((ONE, "F"))
    assert taken(queue)[:2] == (ONE, "H")


def test_blocked_follower_is_not_handed_out() -> None:
    queue = ReadyQueue(1)
    queue.add((ONE, "F"), ("A",))
    taken(queue)
    queue.block((ONE, "F"), ("A",), math.inf)
    queue.done((ONE, "F"), ("B",))
    queue.add((ONE, "F"), ("C",))
    assert len(queue) == 0
    queue.unblock((ONE, "F"))
    assert taken(queue) == (ONE, "F", {"A", "B", "C"})


def test_block_expires() -> None:
    queue = ReadyQueue(1)
    queue.block((ONE, "F"), ("A",), 0.05)
    queue.block((TWO, "F"), ("A",), 0.01)
    assert [taken(queue)[0], taken(queue)[0]] == [TWO, ONE]


def test_dropped_tenant_is_not_handed_out() -> None:
    queue = ReadyQueue(1)
    queue.add((ONE, "F"), ("A",))
    queue.block((ONE, "G"), ("A",), 0.01)
    queue.add((TWO, "F"), ("A",))
    queue.drop(ONE)
    assert taken(queue)[0] == TWO
    assert queue.running() == [TWO]


def test_many_threads() -> None:
    """No follower runs twice at once, no tenant exceeds its limit, and no wake-up is lost."""
    queue = ReadyQueue(2)
    keys = [(tenant_id, follower) for tenant_id in (ONE, TWO) for follower in ("F", "G", "H")]
    asked, seen = Counter[str](), Counter[str]()
    lock = threading.Lock()
    running: list[tuple[UUID, str]] = []
    faults: list[object] = []

    def work() -> None:
        while (found := queue.take()) is not None:
            key, leaders = found
            with lock:
                if key in running or sum(1 for other in running if other[0] == key[0]) >= 2:
                    faults.append(key)
                running.append(key)
            seen.update(leaders)
            with lock:
                running.remove(key)
            queue.done(key)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        asked[str(number)] += 1
        queue.add(keys[number % len(keys)], (str(number),))
    wait_until(lambda: len(seen) == len(asked), "all have been seen")
    queue.close()
    for thread in threads:
        thread.join()
    assert (seen, faults) == (asked, [])


def test_pipes_are_in_downstream_order_even_with_cycles() -> None:
    class ApplicationSpec:
        def __init__(self, application: str, *follows: str) -> None:
            self.application, self.follows = application, follows

    def ordered(*application_specs: ApplicationSpec) -> list[Pipe]:
        return list(Pipes(application_specs).all)  # type: ignore[arg-type]

    assert ordered(ApplicationSpec("C", "B"), ApplicationSpec("B", "A"), ApplicationSpec("A")) == [
        Pipe("A", "B"),
        Pipe("B", "C"),
    ]
    assert set(ordered(ApplicationSpec("A", "B"), ApplicationSpec("B", "A"))) == {Pipe("B", "A"), Pipe("A", "B")}
