"""Subscription scenarios: R3 waits for another process, R3c catches up."""

from __future__ import annotations

import math
import os
import random
import struct
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Final

from eventsourcing.persistence import Notification, StoredEvent, Subscription

from benchmarks.events import TOPIC, is_as_written, originators
from benchmarks.measurement import Measurement, WorkNotDoneError, require, settle
from benchmarks.places import URL_VARIABLE

if TYPE_CHECKING:
    from benchmarks.catalog import Scenario, Size
    from benchmarks.places import Place

WRITE_WHEN_ASKED: Final = "write-when-asked"
_STAMP: Final = struct.Struct("!Q")
_MIN_RECEIPTS: Final = 10
_RECEIPT_TIMEOUT: Final = 30.0


def receive(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """R3: time from an insert in another process to its receipt by a subscription in this one.

    Events are inserted one at a time after random pauses, so that the subscription is asleep. Each carries its time.
    """
    factory = place.factory()
    recorder = factory.application_recorder()
    received: Queue[tuple[int, Notification]] = Queue()
    pauses = random.Random("R3")
    latencies: list[float] = []
    writer = Path(__file__).with_name("worker.py")
    command = [sys.executable, "-P", str(writer), place.contestant.name, WRITE_WHEN_ASKED]
    environment = os.environ | {URL_VARIABLE: place.url, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, text=True) as process,
        recorder.subscribe(gt=None) as subscription,
    ):
        assert process.stdin is not None
        # A daemon, because a subscription that cannot be stopped must not keep the process alive.
        reader = threading.Thread(target=_receive_all, args=(subscription, received), daemon=True)
        reader.start()
        ended = math.inf
        while len(latencies) < _MIN_RECEIPTS or time.perf_counter() < ended:
            time.sleep(pauses.uniform(0.005, 0.03))
            process.stdin.write("\n")
            process.stdin.flush()
            try:
                at, notification = received.get(timeout=_RECEIPT_TIMEOUT)
            except Empty:
                raise WorkNotDoneError(f"An event was not received within {_RECEIPT_TIMEOUT} s.") from None
            require(notification.topic == TOPIC, "A notification differs from the written event.")
            if ended == math.inf:  # The first one included the start of the other process.
                ended = time.perf_counter() + size.seconds
            else:
                latencies.append((at - _STAMP.unpack(notification.state)[0]) / 1e9)
        process.stdin.close()
        require(process.wait(_RECEIPT_TIMEOUT) == 0, "The writing process failed.")
        subscription.stop()
        reader.join(_RECEIPT_TIMEOUT)
    last, asked = recorder.max_notification_id(), len(latencies) + 1
    require(last == asked, f"{asked} events were received, and the last one has the id {last}.")
    require(received.empty(), "An event was received twice.")
    factory.close()
    return Measurement(len(latencies), sum(latencies), latencies)


def _receive_all(subscription: Subscription[Any], received: Queue[tuple[int, Notification]]) -> None:
    for notification in subscription:
        received.put((time.monotonic_ns(), notification))


def write_when_asked(place: Place) -> None:
    """Insert an event for each line of standard input."""
    recorder = place.factory().application_recorder()
    new = originators()
    for _ in sys.stdin:
        originator_id = next(new)
        recorder.insert_events([StoredEvent(originator_id, 1, TOPIC, _STAMP.pack(time.monotonic_ns()))])


_BLOCK: Final = 500


def catch_up(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """R3c: a subscription reads a long log from its start; a call is 500 notifications."""
    factory = place.factory()
    recorder = factory.application_recorder()
    latencies: list[float] = []
    work, last = 0, 0
    block = min(_BLOCK, size.events // 4)
    with recorder.subscribe(gt=None) as subscription:
        next(subscription)
        settle()
        clock = time.perf_counter
        while sum(latencies) < size.seconds and work + 1 + block <= size.events:
            start = clock()
            notifications = list(islice(subscription, block))
            latencies.append(clock() - start)
            work += len(notifications)
            require(all(map(is_as_written, notifications)), "Notifications differ from the written events.")
            ids = [last, *(notification.id for notification in notifications)]
            require(ids == sorted(set(ids)), "Ids are not ascending.")
            require(ids[-1] == work + 1, f"Notification {ids[-1]} came as number {work + 1}.")
            last = ids[-1]
        subscription.stop()
    factory.close()
    return Measurement(work, sum(latencies), latencies)
