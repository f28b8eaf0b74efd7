"""The server restarts under load: nothing is lost or stored twice, and all callers continue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from uuid import UUID

import pytest

from tenancy.testing.postgresql import PostgresServer
from tests.faults.conftest import DRIVERS
from tests.support.applications import Applications
from tests.support.deadlines import run_together, wait_until
from tests.support.growth import Growth
from tests.support.writer import Writer


def restart(server: PostgresServer) -> None:
    server.restart()


def stop_at_once(server: PostgresServer) -> None:
    server.stop("immediate")
    server.start()


def kill(server: PostgresServer) -> None:
    server.kill()
    server.start()


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("sockets_of_pg8000")
@pytest.mark.parametrize("incident", [restart, stop_at_once, kill])
def test_all_callers_continue_after_a_restart(
    own_postgres_server: PostgresServer, incident: Callable[[PostgresServer], None]
) -> None:
    server = own_postgres_server
    is_over = threading.Event()
    with Applications(server.url()) as applications:
        writers = []
        for driver in DRIVERS:
            recorder = applications.recorder("Shop", "shop", url=server.url(driver=driver))
            writers.append(Writer(driver, recorder))
        received: dict[int, UUID | str] = {}
        subscription = applications.recorder("Shop", "shop").subscribe()

        def subscribe() -> None:
            for notification in subscription:
                assert notification.id not in received
                received[notification.id] = notification.originator_id

        def cause_incidents() -> None:
            try:
                for _ in range(2):
                    wait_until(Growth([received], is_over), "the subscription receives")
                    incident(server)
                    wait_until(Growth([w.acknowledged for w in writers], is_over), "every writer continues")
                is_over.set()
                assert all(writer.is_done.wait(20) for writer in writers)
                last = writers[0].recorder.max_notification_id() or 0
                wait_until(lambda: last in received, "the subscription receives everything")
            finally:
                is_over.set()
                subscription.stop()

        writing: list[Callable[[], None]] = [partial(writer.run, is_over) for writer in writers]
        run_together([cause_incidents, subscribe, *writing], 90)

        stored = {n.id: n.originator_id for n in writers[0].recorder.select_notifications(None, 10**6)}
        acknowledged = {number: origin for writer in writers for number, origin in writer.acknowledged.items()}
        assert len(acknowledged) == sum(len(writer.acknowledged) for writer in writers)
        assert acknowledged.items() <= stored.items()
        assert {origin for number, origin in stored.items() if number not in acknowledged} <= set.union(
            *(writer.unknown for writer in writers)
        )
        assert list(received.items()) == list(stored.items())
