"""Quotas in several processes, after a fork, with few rights, and while a database does not answer."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import OperationalError

from tenancy import Tenancy
from tenancy.errors import QuotaExceeded
from tenancy.metering import ledger
from tenancy.metering.rollup import Rollup
from tenancy.registry.usage import CountStore
from tests.acceptance.commands import ROOT
from tests.samples.kennels import Kennel
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.forked import forks, in_child

PROGRAM = """
import sys
from tenancy import Tenancy
from tenancy.errors import QuotaExceeded
from tests.samples.kennels import Kennel
with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": sys.argv[1]}) as tenants:
    kennel = tenants["acme"].get(Kennel)
    sys.stdin.readline()
    recorded = 0
    try:
        while True:
            kennel.register("Fido")
            recorded += 1
    except QuotaExceeded:
        print(recorded)
"""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def tenants(url: str) -> Iterator[Tenancy]:
    """A fleet with a tenant that may record 200 events."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as tenants:
        tenants.create("acme", metadata={"quotas": {"events": 200}})
        yield tenants


def write(tenants: Tenancy, events: int = 1) -> None:
    for _ in range(events):
        tenants["acme"].get(Kennel).register("Fido")


def is_refused(tenants: Tenancy) -> bool:
    try:
        write(tenants)
    except QuotaExceeded:
        return True
    return False


def test_processes_exceed_a_total_by_no_more_than_between_two_refreshes(tenants: Tenancy, url: str) -> None:
    """In the worst case, each records all that was left before it hears of the others."""
    command = [sys.executable, "-c", PROGRAM, url]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    recorded = [int(process.communicate("go\n", timeout=DEADLINE_SECONDS)[0]) for process in processes]
    assert 200 <= sum(recorded) <= 400
    assert tenants.usage("acme").events == sum(recorded)
    assert is_refused(tenants)


@forks
def test_child_has_accounts_and_a_thread_of_its_own(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "INTERVAL", 0.01)
    write(tenants, 100)

    def record() -> int:
        write(tenants, 100)
        return int(is_refused(tenants)) + 10 * [each.name for each in threading.enumerate()].count("tenancy-quotas")

    assert in_child(record) == 11
    wait_until(lambda: is_refused(tenants), "the parent knows the child's events")
    assert tenants.usage("acme").events >= 200


def test_refresh_that_fails_is_repeated_and_delays_nothing(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "INTERVAL", 0.01)
    write(tenants)
    run, failures, works = Rollup.run, [], threading.Event()

    def fail(self: Rollup, tables: Any) -> Any:
        if works.is_set() or threading.current_thread().name != "tenancy-quotas":
            return run(self, tables)
        failures.append(tables)
        raise OperationalError

    monkeypatch.setattr(Rollup, "run", fail)
    write(tenants, 198)
    wait_until(lambda: len(failures) >= 2, "the refresh has been repeated")
    write(tenants)
    with pytest.raises(QuotaExceeded, match="recorded 200 of 200"):
        write(tenants)
    works.set()
    tenants.update("acme", metadata={"quotas": {"events": 201}})
    write(tenants)
    assert is_refused(tenants)


def test_first_event_fails_while_the_registry_is_unreachable_and_then_succeeds(
    tenants: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CountStore, "read", lambda *_: (_ for _ in ()).throw(OperationalError))
        with pytest.raises(OperationalError):
            write(tenants)
    write(tenants)
    assert tenants["acme"].get(Kennel).names() == ["Fido"]


def test_role_that_may_not_write_to_the_registry(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "INTERVAL", 0.01)
    role = f"role_{sa.make_url(postgres_url).database}"
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": postgres_url}) as tenants:
        schema = tenants.create("acme", metadata={"quotas": {"events": 5}}).placement.schema
        with engine.connect() as connection:
            for statement in (
                f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
                f"GRANT USAGE ON SCHEMA tenancy, {schema} TO {role}",
                f"GRANT SELECT ON ALL TABLES IN SCHEMA tenancy TO {role}",
                f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA {schema} TO {role}",
                f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
            ):
                connection.exec_driver_sql(statement)
        mine = sa.make_url(postgres_url).set(username=role, password="x").render_as_string(hide_password=False)  # noqa: S106 (of the test)
        try:
            with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": mine}) as limited:
                write(limited, 2)
                assert limited.usage("acme").events == 2
                write(tenants, 2)
                wait_until(lambda: is_refused(limited), "the role knows the other one's events")
                assert 5 <= limited.usage("acme").events <= 7  # some before it knew
        finally:
            with engine.connect() as connection:
                connection.exec_driver_sql(f"DROP OWNED BY {role}")
                connection.exec_driver_sql(f"DROP ROLE {role}")
