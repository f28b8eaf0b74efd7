"""The ready queue is fair, runs each follower once at a time, and holds blocked followers back."""

from __future__ import annotations

import math
import threading
from collections import Counter
from uuid import UUID, uuid4

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
