"""A process dies between any two steps of any verb: the next call, or a repair, completes or undoes the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import PersistenceError
from sqlalchemy.engine.default import DefaultDialect

from eventsourcing_sqlalchemy.engines.executors import CursorExecutor
from tenancy import Tenancy
from tenancy.errors import TenancyError, TenantExists, TenantNotFound
from tests.samples.kennels import Kennel
from tests.support import catalog

pytestmark = pytest.mark.usefixtures("no_purge_delay")

_REPEAT = int(os.environ.get("TEST_REPEAT", "1"))


class Died(BaseException):
    """The death of a process: not caught, and nothing runs after it."""


class Death:
    """Kills a process before its n-th database step, which is after the step before it.

    Reads change nothing, so dying before one equals dying before the next write; reads count only with TEST_REPEAT.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps = 0
        self._thread = threading.get_ident()

    def step(self, statement: object) -> None:
        """Die at the n-th step."""
        is_read = str(statement).lstrip().upper().startswith(("SELECT", "PRAGMA"))
        if threading.get_ident() == self._thread and not (is_read and _REPEAT == 1):
            self.steps += 1
            if self.steps >= self.at:
                raise Died


@contextmanager
def dying(death: Death) -> Iterator[None]:
    """Count statements, commits and scripts of all engines, and die at the n-th step."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, position in (
            (DefaultDialect, "do_execute", 2),
            (DefaultDialect, "do_execute_no_params", 2),
            (DefaultDialect, "do_commit", 0),
            (CursorExecutor, "fetch", 1),
            (CursorExecutor, "run_script", 1),
        ):
            original = getattr(owner, name)

            def call(*args: Any, _original: Any = original, _position: int = position, **kwargs: Any) -> Any:
                death.step(args[_position])
                return _original(*args, **kwargs)

            patch.setattr(owner, name, call)
        with suppress(Died):
            yield


def tenancy(url: str) -> Tenancy:
    return Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url})


def die(url: str, verb: Callable[[Tenancy], object], at: int) -> bool:
    """Run a verb in a dying process, and return whether it died; its connections end with it."""
    death = Death(at)
    tenants = tenancy(url)
    try:
        with dying(death):
            verb(tenants)
        return death.steps >= at
    finally:
        tenants.close()


def consistent(tenants: Tenancy, url: str) -> None:
    """Fail for orphaned tables, tenants without tables, rows that contradict their history, and held locks."""
    found = tenants.list()
    names = catalog.tenants(url)
    placements = {str(tenant.placement) for tenant in found}
    assert all(any(name.startswith(placement) for placement in placements) for name in names), "orphaned"
    for tenant in found:
        history = tenants.history(tenant.slug)
        assert history[-1].status == tenant.status
        assert [change.version for change in history] == list(range(1, len(history) + 1))
        if tenant.status in ("active", "suspended", "archived", "deleted"):
            assert not list(tenants.fleet.inventory.faults([tenant], tenants.application_specs()))


def repair(tenants: Tenancy) -> None:
    """Repair as the doctor does: complete half-created tenants, and remove half-removed ones."""
    half_made = tenants.list("provisioning")
    tenants.fleet.provisioning.complete(half_made, None)
    list(tenants.purge_many([tenant.slug for tenant in tenants.list("purging")]))


VERBS: dict[str, tuple[Callable[[Tenancy], object], str | None]] = {
    "create": (lambda tenants: tenants.create("acme", request_id="r-1"), "active"),
    "create_many": (lambda tenants: list(tenants.create_many(["acme", "globex"], exist_ok=True)), "active"),
    "suspend": (lambda tenants: tenants.suspend("acme", reason="why"), "suspended"),
    "rename": (lambda tenants: tenants.rename("globex", "acme"), "active"),
    "purge": (lambda tenants: tenants.purge("acme"), None),
}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_death_at_every_step(url: str, verb: str) -> None:
    call, status = VERBS[verb]
    with tenancy(url) as tenants:
        tenants.init()
        at = 0
        while True:
            at += 1
            if not verb.startswith("create"):
                tenants.create("globex" if verb == "rename" else "acme")
            if not die(url, call, at):
                break
            if at % 2:
                # Repeat the verb in another process.
                try:
                    call(tenants)
                except TenantNotFound:
                    assert verb in ("rename", "purge"), "the verb was completed"
            else:
                repair(tenants)
            consistent(tenants, url)
            assert not tenants.list("provisioning")
            assert not tenants.list("purging")
            if at % 2:
                assert ("acme" in tenants) == (status is not None)
                assert status is None or tenants["acme"].status == status
            list(tenants.purge_many(tenants.slugs()))
            assert catalog.tenants(url) == set()
        assert at > 4, "there were steps"


def test_death_at_every_step_of_init(url: str) -> None:
    at = 0
    while True:
        at += 1
        with dying(Death(at)) as _, tenancy(url) as tenants:
            tenants.init()
            break
        with tenancy(url) as tenants:
            tenants.create("acme").get(Kennel).register("Fido")
            tenants.purge("acme")
            assert tenants.fleet.registry.fleet_settings().keys() >= {"format", "hash_key"}
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                for (name,) in connection.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'table'")).all():
                    if not name.startswith("sqlite_"):
                        connection.execute(sa.text(f"DROP TABLE {name}"))
            else:
                connection.execute(sa.text("DROP SCHEMA tenancy CASCADE"))
        engine.dispose()
    assert at > 3


def test_death_at_every_step_of_adopt(url: str) -> None:
    where = "table_prefix" if url.startswith("sqlite") else "schema"
    variable = {"table_prefix": "SQLALCHEMY_TABLE_PREFIX", "schema": "SQLALCHEMY_SCHEMA"}[where]
    env = {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": url, variable: "old_"}
    at = 0
    with tenancy(url) as tenants:
        tenants.init()
        while True:
            at += 1
            Kennel(env=env).close()
            if not die(url, lambda other: other.adopt("acme", **{where: "old_"}), at):  # type: ignore[arg-type]
                break
            try:
                tenants.adopt("acme", **{where: "old_"})  # type: ignore[arg-type]
            except TenantExists as error:
                if "being created" in str(error):
                    repair(tenants)
            assert tenants["acme"].status == "active"
            assert tenants["acme"].adopted
            tenants.purge("acme")
    assert at > 4


_PROGRAM = """
import os, sys
import sqlalchemy as sa
from tests.faults.test_tenant_crashes import Death, VERBS, tenancy
import tests.faults.test_tenant_crashes as crashes
class RealDeath(Death):
    def step(self, statement):
        try:
            super().step(statement)
        except crashes.Died:
            os._exit(9)
with crashes.dying(RealDeath(int(sys.argv[3]))):
    VERBS[sys.argv[2]][0](tenancy(sys.argv[1]))
"""


@pytest.mark.parametrize(("verb", "at"), [("create", 5), ("purge", 5)])
def test_process_that_is_really_killed(url: str, verb: str, at: int) -> None:
    with tenancy(url) as tenants:
        tenants.init()
        if verb == "purge":
            tenants.create("acme").get(Kennel).register("Fido")
        program = [sys.executable, "-c", _PROGRAM, url, verb, str(at)]
        done = subprocess.run(program, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 9, done.stderr
        try:
            VERBS[verb][0](tenants)
        except TenantNotFound:
            assert verb == "purge"
        repair(tenants)
        consistent(tenants, url)
        assert tenants.slugs() == (["acme"] if verb == "create" else [])


def test_error_instead_of_death(url: str) -> None:
    """Whichever step the database refuses, repeating the verb succeeds."""
    with tenancy(url) as tenants:
        tenants.init()
        for at in range(1, 40):
            steps = 0

            def refuse(*_: Any, _at: int = at) -> None:
                nonlocal steps
                steps += 1
                if steps == _at:
                    raise sa.exc.OperationalError("", {}, Exception("no"))

            engines = [tenants.fleet.registry.datastore.engine, tenants.fleet.shard.datastore.engine]
            for engine in engines:
                sa.event.listen(engine, "before_cursor_execute", refuse)
            with suppress(TenancyError, PersistenceError):  # not the one that SQLAlchemy raises
                tenants.create("acme")
            for engine in engines:
                sa.event.remove(engine, "before_cursor_execute", refuse)
            if steps < at:
                break
            tenants.create("acme", exist_ok=True)
            consistent(tenants, url)
            tenants.purge("acme")
        assert at > 3
