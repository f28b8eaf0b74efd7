"""Hooks for new tenants run before the tenant serves, and once in effect."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from functools import partial

import pytest
from eventsourcing.persistence import OperationalError

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tenancy import Tenancy, Tenant
from tenancy.errors import HookFailed, InvalidArgument, NotRegistered, TenantNotReady, TenantPurged
from tenancy.operations.doctor import Finding, examine, repair
from tenancy.registry.process_leases import ProcessLease
from tests.samples.kennels import Kennel
from tests.support.deadlines import run_together

pytestmark = pytest.mark.usefixtures("no_purge_delay", "cold_cache")


class Seed:
    """A hook that registers a dog, and fails on request."""

    def __init__(self, tenants: Tenancy, name: str = "seed") -> None:
        self.error: BaseException | None = None
        self.calls: list[str] = []
        tenants.on_created(name=name)(self)

    def __call__(self, tenant: Tenant) -> None:
        self.calls.append(tenant.slug)
        tenant.get(Kennel).register("Mascot")
        if self.error is not None:
            raise self.error


def steps(tenants: Tenancy) -> Finding:
    """Return doctor's finding about interrupted steps."""
    (found,) = [each for each in examine(tenants.fleet) if each.name == "steps"]
    return found


@pytest.mark.parametrize("slug", ["acme", 'Ünï-cödé "x"'])
def test_hook_prepares_the_tenant_before_it_serves(make: Callable[[], Tenancy], slug: str) -> None:
    tenants, other = make(), make()
    seen: list[object] = []

    @tenants.on_created
    def seed(tenant: Tenant) -> None:
        assert tenants.current == tenant == tenants[slug]
        tenants.application(Kennel).register("Mascot")
        recorder = tenant.get(Kennel).recorder
        assert isinstance(recorder, SQLAlchemyApplicationRecorder)
        with recorder.transaction():
            tenant.get(Kennel).register("Second")
        seen.extend([tenant.status, other[slug].status])
        with pytest.raises(TenantNotReady):
            run_together([lambda: other[slug].get(Kennel)])  # another thread has no part in the hook

    acme = tenants.create(slug)
    assert (acme.status, seen) == ("active", ["provisioning", "provisioning"])
    assert other[slug].get(Kennel).names() == ["Mascot", "Second"]
    assert [change.action for change in tenants.history(acme.slug)] == ["create", "activate"]


def test_failure_leaves_the_tenant_in_provisioning_with_the_reason(tenants: Tenancy) -> None:
    seed = Seed(tenants)
    seed.error = ValueError("the card 4711 of Ms. Miller")
    with pytest.raises(HookFailed, match=r"Hook 'seed' of tenant 'acme' failed \(ValueError\)\. Fix") as caught:
        tenants.create("acme")
    assert caught.value.__cause__ is seed.error
    assert "4711" not in str(caught.value)
    assert tenants["acme"].status == "provisioning"
    with pytest.raises(TenantNotReady):
        tenants["acme"].get(Kennel)
    (run,) = tenants.fleet.hooks.runs([tenants["acme"]])
    assert (run.error, run.attempts, run.finished_at) == ("builtins.ValueError", 1, None)
    assert run.frames[-1].startswith("tests.integration.tenancy.hooks.test_on_created:Seed.__call__:")
    found = steps(tenants)
    assert (found.level, found.tenant) == ("failure", "acme")
    assert "hook 'seed' failed (builtins.ValueError at tests.integration" in found.what
    assert "4711" not in found.what + str(run)


@pytest.mark.parametrize("again", ["repair", "request", "exist_ok"])
def test_each_hook_runs_again_until_it_has_succeeded(tenants: Tenancy, again: str) -> None:
    first, second, third = (Seed(tenants, name) for name in ("first", "second", "third"))
    second.error = SystemExit(3)
    with pytest.raises(HookFailed, match="'second'"):
        tenants.create("acme", request_id="r-1")
    if again == "repair":
        (failed,) = [each for each in repair(tenants.fleet) if each.tenant == "acme"]
        assert failed.level == "failure"
        assert "Hook 'second'" in failed.what
    second.error = None
    if again == "repair":
        assert [each.level for each in repair(tenants.fleet) if each.tenant == "acme"] == ["ok"]
    elif again == "request":
        tenants.create("acme", request_id="r-1")
    else:
        tenants.create("acme", exist_ok=True)
    assert tenants["acme"].status == "active"
    calls = [len(each.calls) for each in (first, second, third)]
    assert calls == [1, 3 if again == "repair" else 2, 1]
    assert {run.hook: run.attempts for run in tenants.fleet.hooks.runs([tenants["acme"]])} == {
        "first": 1,
        "second": calls[1],
        "third": 1,
    }
    tenants.create("acme", exist_ok=True)
    list(repair(tenants.fleet))
    assert len(first.calls) == 1, "an active tenant has been prepared"


def test_hooks_of_many(tenants: Tenancy) -> None:
    seed = Seed(tenants)
    slugs = [f"t{number}" for number in range(12)]
    assert [tenant.status for tenant in tenants.create_many(slugs)] == ["active"] * 12
    assert seed.calls == slugs

    @tenants.on_created
    def refuse(tenant: Tenant) -> None:
        if tenant.slug == "globex":
            raise ValueError

    made = tenants.create_many(["acme", "globex", "umbra"])
    assert next(made).slug == "acme"
    with pytest.raises(HookFailed, match="'globex'"):
        next(made)
    assert [tenants[slug].status for slug in ("acme", "globex", "umbra")] == ["active", "provisioning", "active"]
    assert [tenant.slug for tenant in tenants.create_many(["acme", "umbra"], exist_ok=True)] == ["acme", "umbra"]


def test_one_process_runs_the_hooks_of_a_tenant(make: Callable[[], Tenancy]) -> None:
    fleets = [make() for _ in range(3)]
    fleets[0].init()
    seeds = [Seed(fleet) for fleet in fleets]
    made = run_together([partial(fleet.create, "acme", exist_ok=True) for fleet in fleets])
    assert {tenant.id for tenant in made} == {fleets[0]["acme"].id}
    assert sum(len(seed.calls) for seed in seeds) == 1
    assert fleets[0]["acme"].get(Kennel).names() == ["Mascot"]


def test_call_that_does_not_wait_for_the_hooks_of_another_process(
    make: Callable[[], Tenancy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenancy.lifecycle.hooks._WAIT", 0.05)
    tenants, other = make(), make()
    Seed(other)

    @tenants.on_created
    def seed(tenant: Tenant) -> None:
        with pytest.raises(TenantNotReady, match="another process runs its hooks"):
            run_together([partial(other.complete, tenant)])

    assert tenants.create("acme").status == "active"


def test_hook_runs_longer_than_the_lease(make: Callable[[], Tenancy], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenancy.lifecycle.hooks._LEASE", 0.5)
    tenants, other = make(), make()
    seed = Seed(other)
    renewed = threading.Event()
    renewals = 0

    def renew() -> bool:
        nonlocal renewals
        renewals += 1
        if renewals > 8:  # more than the duration of the lease
            renewed.set()
        return True

    @tenants.on_created(name="seed")
    def slow(_: Tenant) -> None:
        take = ProcessLease.acquire
        monkeypatch.setattr(ProcessLease, "acquire", lambda self: renew() and take(self))
        calls: list[Callable[[], object]] = [partial(other.create, "acme", exist_ok=True), partial(renewed.wait, 30)]
        threads = [threading.Thread(target=call) for call in calls]
        others.extend(threads)
        for thread in threads:
            thread.start()
        assert renewed.wait(30)

    others: list[threading.Thread] = []
    assert tenants.create("acme").status == "active"
    for thread in others:
        thread.join()
    assert seed.calls == []


def test_adopted_tenant_has_its_data_already(tenants: Tenancy, url: str) -> None:
    where = "SQLALCHEMY_TABLE_PREFIX" if url.startswith("sqlite") else "SQLALCHEMY_SCHEMA"
    env = {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": url, where: "old_"}
    kennel = Kennel(env=env)
    kennel.register("Fido")
    kennel.close()
    seed = Seed(tenants)
    place = {"table_prefix": "old_"} if url.startswith("sqlite") else {"schema": "old_"}
    assert tenants.adopt("acme", **place).get(Kennel).names() == ["Fido"]  # type: ignore[arg-type]
    assert seed.calls == []


def test_process_without_the_hook_creates_nothing(tenants: Tenancy, url: str) -> None:
    seed = Seed(tenants)
    seed.error = ValueError()
    with pytest.raises(HookFailed):
        tenants.create("acme")
    for applications in ([], [Kennel]):
        with Tenancy(applications=applications, env={"SQLALCHEMY_URL": url}) as other:
            with pytest.raises(NotRegistered, match=r"need the hook 'seed', .* --app"):
                other.create("globex")
            with pytest.raises(NotRegistered, match="'seed'"):
                other.complete("acme")
            assert "globex" not in other
            assert other["acme"].status == "provisioning"
            assert [each.level for each in repair(other.fleet) if each.tenant == "acme"] == ["failure"]
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as other:
        (found,) = [each for each in examine(other.fleet) if each.name == "hooks" and each.level == "failure"]
        assert "seed is recorded and not in the code" in found.what
        other.init()  # the hook was removed for good
        assert other.complete("acme").status == other.create("globex").status == "active"


def test_new_hook_is_recorded_by_the_first_create(make: Callable[[], Tenancy]) -> None:
    tenants, other = make(), make()
    tenants.init()
    Seed(other)
    other.create("acme")
    with pytest.raises(NotRegistered):
        tenants.create("globex")
    assert [each.what for each in examine(other.fleet) if each.name == "hooks"] == ["New tenants are prepared by seed."]


def test_purge_of_a_tenant_whose_hook_fails(tenants: Tenancy) -> None:
    Seed(tenants).error = ValueError()
    with pytest.raises(HookFailed):
        tenants.create("acme")
    acme = tenants["acme"]
    assert set(tenants.purge("acme").left.values()) == {0}
    assert tenants.fleet.hooks.runs([acme]) == []


def test_purge_while_a_hook_runs(make: Callable[[], Tenancy]) -> None:
    tenants, other = make(), make()

    @tenants.on_created
    def seed(tenant: Tenant) -> None:
        run_together([partial(other.purge, tenant.slug)])
        with pytest.raises(TenantPurged):
            tenant.get(Kennel).register("Fido")

    with pytest.raises(TenantPurged):
        tenants.create("acme")
    assert tenants.list() == []
    table = tenants.fleet.registry.rows.hook_runs
    with tenants.fleet.registry.reading() as session:
        assert session.execute(table.select()).all() == []
    assert list(tenants.fleet.inventory.orphans([], tenants.fleet.application_specs())) == []


def test_failure_of_the_registry_while_a_hook_fails(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    Seed(tenants).error = ValueError()

    def fail(*_: object, **__: object) -> None:
        raise OperationalError

    monkeypatch.setattr("tenancy.registry.hook_runs.HookRuns.fail", fail)
    with pytest.raises(HookFailed):
        tenants.create("acme")
    assert "was started, attempt 1" in steps(tenants).what


def test_tenants_in_provisioning_are_not_migrated_by_jobs(tenants: Tenancy) -> None:
    seed = Seed(tenants)
    tenants.create("globex")
    seed.error = ValueError()
    with pytest.raises(HookFailed):
        tenants.create("acme")
    report = tenants.migrate()
    assert report.job is None or report.job.status == "done"
    assert tenants["acme"].status == "provisioning"
    seed.error = None
    assert tenants.complete("acme").status == "active"


def test_misuse_is_refused(tenants: Tenancy) -> None:
    async def seed(_: Tenant) -> None:
        await asyncio.sleep(0)

    with pytest.raises(InvalidArgument, match="coroutine"):
        tenants.on_created(seed)
    with pytest.raises(InvalidArgument, match="no usable name"):
        tenants.on_created(lambda _: None)
    with pytest.raises(InvalidArgument, match="is not a function"):
        tenants.on_created(42)  # type: ignore[call-overload]
    Seed(tenants)
    with pytest.raises(InvalidArgument, match="Two functions have the name 'seed'"):
        Seed(tenants)


def test_a_copied_context_has_no_part_in_a_hook_that_is_over(make: Callable[[], Tenancy]) -> None:
    tenants = make()
    copies: list[contextvars.Context] = []
    kennels: list[Kennel] = []

    @tenants.on_created
    def seed(tenant: Tenant) -> None:
        kennels.append(tenant.get(Kennel))
        copies.append(contextvars.copy_context())
        copies[0].run(kennels[0].register, "Mascot")  # as asyncio.to_thread does
        raise ValueError

    with pytest.raises(HookFailed):
        tenants.create("acme")
    with pytest.raises(TenantNotReady):
        copies[0].run(kennels[0].register, "Late")
