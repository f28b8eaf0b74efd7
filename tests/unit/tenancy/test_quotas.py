"""Quotas in metadata, and an account that is charged without a database."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from uuid import uuid4

import pytest

from tenancy.errors import InvalidArgument, QuotaExceeded
from tenancy.metering.account import Account, Reservation
from tenancy.metering.source import quotas_for, topic_of
from tenancy.model.quotas import Quotas, check_quotas, quotas_fault, quotas_of
from tenancy.model.usage import Count
from tests.support.deadlines import run_together

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_quotas_of_metadata() -> None:
    metadata = {"quotas": {"events": 10, "events_per_second": 0.5, "bytes": None}, "plan": "free"}
    check_quotas(metadata)
    assert quotas_of(metadata) == Quotas(events=10, events_per_second=0.5)


@pytest.mark.parametrize("metadata", [{}, {"quotas": None}, {"quotas": {}}, {"quotas": {"events": None}}])
def test_no_quotas(metadata: dict[str, Any]) -> None:
    check_quotas(metadata)
    assert quotas_of(metadata) is None


@pytest.mark.parametrize(
    ("quotas", "place"),
    [
        ("many", r"metadata\['quotas'\] is not an object"),
        ([1], r"metadata\['quotas'\] is not an object"),
        ({"event": 1}, "has the key 'event', and the quotas are events, events_per_second, bytes"),
        ({"events": -1}, r"metadata\['quotas'\]\['events'\] is not a whole number"),
        ({"events": 1.5}, r"\['events'\] is not a whole number"),
        ({"events": True}, r"\['events'\] is not a whole number"),
        ({"events": "10"}, r"\['events'\] is not a whole number"),
        ({"bytes": 2**63}, r"\['bytes'\] is not a whole number"),
        ({"events_per_second": 0}, r"\['events_per_second'\] is not a number from 0.001"),
        ({"events_per_second": float("nan")}, r"\['events_per_second'\] is not a number"),
    ],
)
def test_unusable_quotas_are_refused_and_ignored(quotas: object, place: str) -> None:
    with pytest.raises(InvalidArgument, match=place):
        check_quotas({"quotas": quotas})
    assert quotas_fault({"quotas": quotas}) is not None
    assert quotas_of({"quotas": quotas}) is None
    if isinstance(quotas, dict) and "event" not in quotas:
        with pytest.raises(InvalidArgument, match="is not a"):
            Quotas(**quotas)


def by_plan(tenant: Any) -> Quotas | None:
    """The function of a fleet."""
    return Quotas(events=5) if tenant.metadata.get("plan") == "free" else None


def wrong(_: Any) -> Any:
    """The function of another fleet."""
    return {"events": 5}


def test_function_of_the_user() -> None:
    tenant: Any = MagicMock(metadata={"plan": "free", "quotas": {"events": 1}}, slug="acme")
    settings: Any = MagicMock(quotas_topic=topic_of(by_plan))
    assert quotas_for(tenant, settings) == Quotas(events=5)
    tenant.metadata = {}
    assert quotas_for(tenant, settings) is None
    settings.quotas_topic = topic_of(wrong)
    with pytest.raises(InvalidArgument, match=r"wrong returned dict for tenant 'acme'\. Return Quotas"):
        quotas_for(tenant, settings)
    for function in (lambda _: None, "by_plan", 7):
        with pytest.raises(InvalidArgument, match="top level of a module"):
            topic_of(function)  # type: ignore[arg-type]


class Tenant:
    """An account with quotas, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **quotas: Any) -> None:
        self.seconds = 0.0
        self.account = Account()
        self.quotas = Quotas(**quotas)
        self.last_id = 0
        self._tenant: Any = MagicMock(slug="acme", id=uuid4())
        monkeypatch.setattr("tenancy.metering.account.time", SimpleNamespace(monotonic=lambda: self.seconds))

    def reserve(self, events: int = 1, size: int = 0, *, is_exempt: bool = False) -> Reservation:
        return self.account.reserve(self._tenant, self.quotas, "Kennel", events, size, is_exempt=is_exempt)

    def record(self, events: int = 1, size: int = 0, *, is_exempt: bool = False) -> None:
        reservation = self.reserve(events, size, is_exempt=is_exempt)
        self.last_id += events
        reservation.settle(self.last_id)

    def refresh(self, events: int, size: int = 0, position: int = 0) -> None:
        self.account.begin_refresh()
        self.end_refresh(events, size, position)

    def end_refresh(self, events: int, size: int = 0, position: int = 0) -> None:
        count = Count(
            position=position or events, events=events, bytes=size, first_at=NOW, last_at=NOW, window_at=NOW,
            window_events=0,
        )  # fmt: skip
        self.account.end_refresh({"Kennel": count})


def test_total_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Tenant(monkeypatch, events=5, bytes=100)
    acme.refresh(2, 40)
    acme.last_id = 2
    acme.record(2, 50)
    with pytest.raises(QuotaExceeded) as caught:
        acme.reserve(2, 1)
    error = caught.value
    assert (error.quota, error.limit, error.retry_after, error.http_status) == ("events", 5, None, 402)
    assert (error.code, error.tenant) == ("quota_exceeded", "acme")
    assert str(error).startswith("Tenant 'acme' has recorded 4 of 5 events, and 2 more would exceed its quota.")
    with pytest.raises(QuotaExceeded) as caught:
        acme.reserve(1, 11)
    assert (caught.value.quota, caught.value.limit) == ("bytes", 100)
    acme.record(1, 10)
    with pytest.raises(QuotaExceeded):
        acme.reserve(1, 0)


def test_refresh_counts_each_event_once(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Tenant(monkeypatch, events=10)
    acme.refresh(0)
    acme.record(3)
    acme.account.begin_refresh()
    acme.record(2)  # the refresh has read two of these five and one of another process
    acme.end_refresh(4, position=4)
    acme.record(4)
    with pytest.raises(QuotaExceeded, match="recorded 10 of 10"):
        acme.reserve()
    acme.refresh(9, position=10)  # one was rolled back
    acme.last_id = 10
    acme.record()
    with pytest.raises(QuotaExceeded):
        acme.reserve()


def test_event_that_a_refresh_has_read_before_its_thread_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Tenant(monkeypatch, events=2)
    reservation = acme.reserve()
    acme.refresh(1)
    reservation.settle(1)
    acme.reserve()


def test_failed_events_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Tenant(monkeypatch, events=2, events_per_second=2)
    acme.refresh(0)
    for _ in range(5):
        acme.reserve(2).release()
    acme.record(2)


def test_exempt_events_are_counted_and_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Tenant(monkeypatch, events=2)
    acme.refresh(0)
    acme.record(5, is_exempt=True)
    with pytest.raises(QuotaExceeded, match="recorded 5 of 2"):
        acme.reserve()


def test_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Tenant(monkeypatch, events_per_second=4)
    acme.refresh(0)
    for _ in range(4):
        acme.record()
    with pytest.raises(QuotaExceeded) as caught:
        acme.reserve()
    error = caught.value
    assert (error.quota, error.limit, error.http_status) == ("events_per_second", 4, 429)
    assert error.retry_after == pytest.approx(0.25)
    acme.seconds += 0.25
    acme.record()
    with pytest.raises(QuotaExceeded):
        acme.reserve()
    acme.seconds += 3600
    for _ in range(4):
        acme.record()  # no more than one second is saved up
    with pytest.raises(QuotaExceeded):
        acme.reserve()


def test_batch_larger_than_a_burst_is_paid_off(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Tenant(monkeypatch, events_per_second=4)
    acme.refresh(0)
    acme.record(12)
    with pytest.raises(QuotaExceeded) as caught:
        acme.reserve()
    assert caught.value.retry_after == pytest.approx((12 - 4 + 1) / 4)


def test_slow_rate_admits_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Tenant(monkeypatch, events_per_second=0.1)
    acme.refresh(0)
    acme.record()
    with pytest.raises(QuotaExceeded) as caught:
        acme.reserve()
    assert caught.value.retry_after == pytest.approx(10)


def test_rate_includes_the_events_of_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that record as much as each may: in the long run, they get the rate together."""
    processes = [Tenant(monkeypatch, events_per_second=10) for _ in range(2)]
    for each in processes:
        each.refresh(0)
    recorded = 0
    for step in range(300):  # of a tenth of a second
        for each in processes:
            each.seconds = step / 10
            monkeypatch.setattr("tenancy.metering.account.time", SimpleNamespace(monotonic=lambda now=step / 10: now))
            try:
                each.last_id = recorded
                each.record()
                recorded += 1
            except QuotaExceeded:
                pass
        if step % 10 == 9:
            for each in processes:
                each.refresh(recorded)
    assert 290 <= recorded <= 330


def test_events_of_others_delay_no_longer_than_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Tenant(monkeypatch, events_per_second=10)
    acme.refresh(0)
    acme.record()
    acme.refresh(1_000_000)
    with pytest.raises(QuotaExceeded) as caught:
        acme.reserve()
    assert caught.value.retry_after == pytest.approx(10.1)


def test_threads_share_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = Tenant(monkeypatch, events=100)
    acme.refresh(0)

    def record() -> int:
        done = 0
        for _ in range(40):
            try:
                acme.reserve().settle(1)
            except QuotaExceeded:
                continue
            done += 1
        return done

    assert sum(run_together([record] * 5)) == 100
