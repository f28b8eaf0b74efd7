"""Claims of items: who may claim what, and what an executor can do that has lost its lease."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.errors import RegistryUnavailable
from tenancy.operations.jobs import ItemStatus, JobOptions, JobStatus
from tenancy.operations.jobs.claims import Claim, Claims, ItemEnd, ItemLost
from tenancy.operations.jobs.executor import Executor
from tenancy.operations.jobs.planning import plan_job, record_job
from tenancy.operations.jobs.renewal import Renewal
from tenancy.operations.jobs.store import MAX_ATTEMPTS, JobStore
from tests.integration.tenancy.jobs.conftest import SLUGS
from tests.samples.counting_job import Count, Kennel, create_tables, effects
from tests.support.deadlines import DEADLINE_SECONDS, run_together, wait_until
from tests.support.pgbouncer import PgBouncer


def recorded(tenants: Tenancy, **options: object) -> UUID:
    """Record a job over all tenants, and return its id."""
    operation, items = plan_job(tenants.fleet, Count, {}, tenants.list())
    return record_job(tenants.fleet, operation, items, JobOptions(**options), None)  # type: ignore[arg-type]


def claims_of(tenants: Tenancy, job_id: UUID, owner: str) -> Claims:
    return Claims(tenants.fleet.registry, JobStore(tenants.fleet.registry).get(job_id), owner)


def claimed(claims: Claims) -> Claim:
    claim = claims.claim()
    assert claim is not None
    return claim


def expire_leases(tenants: Tenancy) -> None:
    """Do what the passing of time does."""
    items = tenants.fleet.registry.rows.job_items
    with tenants.fleet.registry.writing_rows() as session:
        session.execute(sa.update(items).values(expires=0))


def test_items_are_claimed_once_in_their_order(tenants: Tenancy) -> None:
    job_id = recorded(tenants)
    one, other = (claims_of(tenants, job_id, owner) for owner in ("one", "other"))
    found = [claimed(claims).tenant_id for claims in (one, other, other, one, one, other)]
    assert found == [tenant.id for tenant in tenants]
    assert (one.claim(), other.claim()) == (None, None)


def test_many_executors_claim_each_item_once(tenants: Tenancy) -> None:
    job_id = recorded(tenants)

    def claim_all(claims: Claims) -> list[UUID]:
        found = []
        while (claim := claims.claim()) is not None:
            found.append(claim.tenant_id)
        return found

    def executor(number: int) -> Callable[[], list[UUID]]:
        claims = claims_of(tenants, job_id, f"executor-{number}")
        return lambda: claim_all(claims)

    found = [tenant_id for each in run_together(map(executor, range(4))) for tenant_id in each]
    assert sorted(found) == sorted(tenant.id for tenant in tenants)


def test_an_executor_that_lost_its_lease_records_nothing(tenants: Tenancy) -> None:
    job_id = recorded(tenants)
    slow, quick = (claims_of(tenants, job_id, owner) for owner in ("slow", "quick"))
    lost = claimed(slow)
    slow.save_progress(lost.tenant_id, {"steps": 1})
    assert slow.renew(lost.tenant_id) == (True, JobStatus.RUNNING)
    expire_leases(tenants)
    taken = claimed(quick)
    assert (taken.tenant_id, taken.progress) == (lost.tenant_id, {"steps": 1})
    assert slow.renew(lost.tenant_id) == (False, JobStatus.RUNNING)
    with pytest.raises(ItemLost):
        slow.save_progress(lost.tenant_id, {"steps": 2})
    with pytest.raises(ItemLost):
        slow.release(lost)
    for status in (ItemStatus.DONE, ItemStatus.FAILED):
        with pytest.raises(ItemLost):
            slow.end(lost, ItemEnd(status=status))
    item = tenants.jobs.items(job_id)[0]
    assert (item.status, item.owner) == (ItemStatus.RUNNING, "quick")
    quick.end(taken, ItemEnd(status=ItemStatus.DONE))
    with pytest.raises(ItemLost):
        quick.end(taken, ItemEnd(status=ItemStatus.FAILED))


def test_an_expired_lease_that_no_other_has_taken_over_is_still_owned(tenants: Tenancy) -> None:
    claims = claims_of(tenants, recorded(tenants), "slow")
    claim = claimed(claims)
    expire_leases(tenants)
    claims.end(claim, ItemEnd(status=ItemStatus.DONE))


def test_a_lease_lasts_by_the_clock_of_the_database(tenants: Tenancy) -> None:
    job_id = recorded(tenants, lease_seconds=100)
    claims_of(tenants, job_id, "one").claim()
    items = tenants.fleet.registry.rows.job_items
    with tenants.fleet.registry.reading() as session:
        (expires,) = session.scalars(sa.select(items.c.expires).where(items.c.owner == "one"))
    left = datetime.fromtimestamp(expires, UTC) - datetime.now(UTC)
    assert timedelta(seconds=40) < left < timedelta(seconds=101)


def test_an_item_that_kills_its_executors_fails(tenants: Tenancy) -> None:
    job_id = recorded(tenants, error_budget="0")
    claims = claims_of(tenants, job_id, "doomed")
    first = claimed(claims).tenant_id
    for _ in range(MAX_ATTEMPTS - 1):
        expire_leases(tenants)
        assert claimed(claims).tenant_id == first
    expire_leases(tenants)
    assert claimed(claims).tenant_id != first
    JobStore(tenants.fleet.registry).advance(job_id)
    report = tenants.jobs.get(job_id)
    assert report.job is not None
    assert report.job.status is JobStatus.HALTED
    assert [(item.tenant, item.error) for item in report.failures] == [("tenant-0", "executor died")]


def test_progress_and_interruptions_do_not_count_as_deaths(tenants: Tenancy) -> None:
    job_id = recorded(tenants)
    claims = claims_of(tenants, job_id, "unlucky")
    first = claimed(claims)
    for _ in range(MAX_ATTEMPTS + 1):
        claims.save_progress(first.tenant_id, {})
        expire_leases(tenants)
        assert claimed(claims).tenant_id == first.tenant_id
    for _ in range(MAX_ATTEMPTS + 1):
        claims.release(first)
        assert claimed(claims).tenant_id == first.tenant_id


def test_nothing_but_canaries_is_claimed_before_they_end(tenants: Tenancy) -> None:
    job_id = recorded(tenants, canary=2)
    store = JobStore(tenants.fleet.registry)
    claims = claims_of(tenants, job_id, "one")
    canaries = [claimed(claims), claimed(claims)]
    assert all(canary.is_canary for canary in canaries)
    store.advance(job_id)
    assert claims.claim() is None
    for canary in canaries:
        claims.end(canary, ItemEnd(status=ItemStatus.SKIPPED))
    assert claims.claim() is None
    store.advance(job_id)
    assert not claimed(claims).is_canary


def test_a_released_item_of_a_cancelled_job_is_cancelled(tenants: Tenancy) -> None:
    job_id = recorded(tenants)
    claims = claims_of(tenants, job_id, "one")
    claim = claimed(claims)
    assert tenants.jobs.cancel(job_id).counts.running == 1
    claims.release(claim)
    assert tenants.jobs.get(job_id).counts.cancelled == len(SLUGS)


def test_cancelling_again_cancels_the_items_of_dead_executors(tenants: Tenancy) -> None:
    job_id = recorded(tenants)
    claims_of(tenants, job_id, "one").claim()
    assert tenants.jobs.cancel(job_id).counts.running == 1
    expire_leases(tenants)
    assert tenants.jobs.cancel(job_id).counts.cancelled == len(SLUGS)


def test_a_tenant_of_another_job_is_passed_over_until_it_is_free(tenants: Tenancy) -> None:
    one, other = (claims_of(tenants, recorded(tenants), owner) for owner in ("one", "other"))
    ids = [tenant.id for tenant in tenants]
    first = claimed(one)
    assert [first.tenant_id, claimed(other).tenant_id, claimed(one).tenant_id] == [ids[0], ids[1], ids[2]]
    one.end(first, ItemEnd(status=ItemStatus.DONE))
    assert claimed(other).tenant_id == ids[0]
    # The tenant of an executor that has died is free for both jobs.
    expire_leases(tenants)
    assert claimed(other).tenant_id == ids[0]
    assert claimed(one).tenant_id == ids[2]


def test_jobs_that_run_at_the_same_time_never_share_a_tenant(tenants: Tenancy, repeat: Callable[[int], range]) -> None:
    """Seen to fail without the second look at the other job's items, on PostgreSQL."""
    items = tenants.fleet.registry.rows.job_items
    running = sa.select(items.c.tenant_id).where(items.c.status == "running")

    def work(claims: Claims, left: list[UUID]) -> None:
        while left:
            claim = claims.claim()
            if claim is None:
                continue
            with tenants.fleet.registry.reading() as session:
                assert list(session.scalars(running)).count(claim.tenant_id) == 1
            claims.end(claim, ItemEnd(status=ItemStatus.DONE))
            left.remove(claim.tenant_id)

    for _ in repeat(4):
        calls = []
        for number in range(3):
            claims = claims_of(tenants, recorded(tenants), f"executor-{number}")
            calls.append(partial(work, claims, [tenant.id for tenant in tenants]))
        run_together(calls, 2 * DEADLINE_SECONDS)


def test_jobs_of_a_kind_share_their_limit(tenants: Tenancy) -> None:
    job_ids = recorded(tenants), recorded(tenants)
    store = JobStore(tenants.fleet.registry)
    one, other = (Claims(tenants.fleet.registry, store.get(each), str(each), 2) for each in job_ids)
    held = [claimed(one), claimed(other)]
    assert (one.claim(), other.claim()) == (None, None)
    one.end(held[0], ItemEnd(status=ItemStatus.DONE))
    assert claimed(other)
    assert one.claim() is None
    expire_leases(tenants)  # those of dead executors do not count
    assert claimed(one)


def test_the_lease_is_renewed_while_an_item_runs(tenants: Tenancy) -> None:
    job_id = recorded(tenants, lease_seconds=0.5)
    one, other = (claims_of(tenants, job_id, owner) for owner in ("one", "other"))
    with Renewal(one, 0.5) as renewal:
        claim = claimed(one)
        renewal.hold(claim)
        expire_leases(tenants)
        expired = sa.select(tenants.fleet.registry.rows.job_items.c.expires).where(
            tenants.fleet.registry.rows.job_items.c.tenant_id == claim.tenant_id
        )

        def is_renewed() -> bool:
            with tenants.fleet.registry.reading() as session:
                return bool(session.scalar(expired))

        wait_until(is_renewed, "the lease is renewed")
        tenants.jobs.cancel(job_id)
        wait_until(lambda: renewal.is_cancelled, "it notices that the job was cancelled")
        one.release(claim)
        wait_until(lambda: not renewal.is_valid, "it notices that the item is lost")
    assert other.claim() is None


def test_a_registry_that_does_not_answer_for_a_while_is_tolerated(
    tenants: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = {"claim": 1, "end": 1, "save_progress": 1}
    monkeypatch.setattr("tenancy.operations.jobs.executor._PAUSE", 0.01)

    def failing(name: str) -> Callable[..., object]:
        original = getattr(Claims, name)

        def call(*arguments: object) -> object:
            if failures[name]:
                failures[name] -= 1
                raise RegistryUnavailable("gone")
            return original(*arguments)

        return call

    for name in failures:
        monkeypatch.setattr(Claims, name, failing(name))
    job_id = recorded(tenants)
    Executor(tenants.fleet, job_id).run()
    assert failures == {"claim": 0, "end": 0, "save_progress": 0}
    assert tenants.jobs.get(job_id).is_success
    assert effects(tenants) == dict.fromkeys(SLUGS, 1)


def test_an_interrupt_gives_the_item_back(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = recorded(tenants)

    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Count, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Executor(tenants.fleet, job_id).run()
    report = tenants.jobs.get(job_id)
    assert report.job is not None
    assert (report.job.status, report.counts.pending) == (JobStatus.RUNNING, len(SLUGS))
    assert tenants.jobs.resume(job_id).is_success


def test_behind_a_pooler_in_transaction_mode(pgbouncer: PgBouncer, postgres_database: str) -> None:
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": pgbouncer.url(postgres_database)}) as tenants:
        for _ in tenants.create_many(SLUGS):
            pass
        create_tables(tenants)
        job_id = recorded(tenants, canary=1, lease_seconds=0.5)
        run_together([Executor(tenants.fleet, job_id).run for _ in range(2)])
        assert tenants.jobs.get(job_id).is_success
        assert effects(tenants) == dict.fromkeys(SLUGS, 1)
