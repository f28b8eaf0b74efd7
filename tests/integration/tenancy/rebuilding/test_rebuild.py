"""A rebuilt view is what a new one would be, and takes its place with the position."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import Tracking
from eventsourcing.projection import Projection

from tenancy import Tenancy
from tenancy.operations.jobs import ItemSkipped
from tenancy.operations.rebuilding import drop_replaced, rebuild_view
from tests.integration.tenancy.rebuilding.conftest import PLACES
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.ledger import KeepLedger, KeepNames
from tests.samples.training_school.views import CountersView
from tests.support.job_items import Item
from tests.support.rebuilds import expected_content, fill, ledger, objects, raw_ledger, rebuild, spaces

EVERYWHERE = pytest.mark.parametrize("place", PLACES, indirect=True)
BOTH = pytest.mark.parametrize("place", ["psycopg", "sqlite"], indirect=True)


def spoil(tenants: Tenancy) -> None:
    """Lose rows, as a projection with a fault does."""
    view = ledger(tenants)
    with view.transaction() as session:
        session.execute(sa.delete(view.tricks))


@EVERYWHERE
def test_rebuilt_view_has_all_rows_and_the_same_tables(tenants: Tenancy) -> None:
    before = objects(tenants)
    spoil(tenants)
    assert rebuild(tenants) == "rebuilt from 30 notifications"
    assert ledger(tenants).content() == expected_content(tenants)
    assert ledger(tenants).totals() == (30, 10, 20, 30, 1)
    assert objects(tenants) == before
    assert rebuild(tenants) == "rebuilt from 30 notifications"
    assert objects(tenants) == before


@EVERYWHERE
def test_runner_continues_with_the_rebuilt_view(tenants: Tenancy) -> None:
    with tenants.runner() as runner:
        runner.wait("acme")
        fill(tenants, "acme", 5)
        runner.wait("acme")
        spoil(tenants)
        rebuild(tenants)
        fill(tenants, "acme", 5)
        runner.wait("acme")
        assert {each.state for each in runner.status()} == {"current"}
    assert ledger(tenants).content() == expected_content(tenants)
    assert ledger(tenants).totals() == (60, 20, 40, 60, 1)


@EVERYWHERE
def test_view_created_by_sql(tenants: Tenancy) -> None:
    before = objects(tenants)
    view = raw_ledger(tenants)
    with view.transaction() as session:
        session.execute(sa.text(f"DELETE FROM {view.named('names')}"))
    assert view.number() == 0
    rebuild(tenants, projection=KeepNames.name)
    assert view.number() == 10
    # It ignores tricks, and its position is the last one all the same.
    assert view.max_tracking_id(TrainingSchool.name) == 30
    assert objects(tenants) == before


@EVERYWHERE
def test_old_tables_are_kept_until_they_are_dropped(tenants: Tenancy) -> None:
    before = objects(tenants)
    fleet = tenants.fleet
    assert not drop_replaced(fleet, KeepLedger.name, tenants["acme"])
    for _ in range(2):
        assert "kept the old tables" in rebuild(tenants, keep_old=True)
    assert spaces(tenants)
    fill(tenants, "acme", 1)
    with tenants.runner() as runner:
        runner.wait("acme")
    assert drop_replaced(fleet, KeepLedger.name, tenants["acme"])
    assert objects(tenants) == before
    assert ledger(tenants).totals() == (33, 11, 22, 33, 1)


@BOTH
def test_history_and_version(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuild(tenants, actor="user-7")
    assert tenants["acme"].versions.views == {}
    monkeypatch.setattr(type(ledger(tenants)), "version", 2, raising=False)
    rebuild(tenants)
    assert tenants["acme"].versions.views == {KeepLedger.name: "2"}
    changes = [(each.action, each.actor, each.remark) for each in tenants.history("acme")][-2:]
    assert changes == [("rebuild", "user-7", KeepLedger.name), ("rebuild", None, KeepLedger.name)]


@BOTH
def test_suspended_tenant_is_rebuilt(tenants: Tenancy) -> None:
    spoil(tenants)
    tenants.suspend("acme")
    rebuild(tenants)
    tenants.resume("acme")
    assert ledger(tenants).content() == expected_content(tenants)


@BOTH
def test_tenant_that_is_offline_is_skipped(tenants: Tenancy) -> None:
    tenants.archive("acme")
    with pytest.raises(ItemSkipped, match="archived"):
        rebuild(tenants)
    tenants.restore("acme")
    item = Item(on_check=lambda: tenants.delete("acme"))
    with pytest.raises(ItemSkipped, match="deleted"):
        rebuild(tenants, item)
    assert spaces(tenants) == []


@EVERYWHERE
def test_purge_during_a_rebuild(tenants: Tenancy) -> None:
    acme = tenants["acme"]
    item = Item(on_check=lambda: tenants.purge(acme))
    fleet = tenants.fleet
    with pytest.raises(ItemSkipped, match="purged"):
        rebuild_view(fleet, fleet.projections.named(KeepLedger.name), acme, item)
    assert spaces(tenants) == []
    assert not [each for each in objects(tenants) if acme.placement.prefix_of("x") in each and "acme" in str(each)]


@EVERYWHERE
def test_purge_removes_what_a_dead_rebuild_left(tenants: Tenancy) -> None:
    rebuild(tenants, keep_old=True)

    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(tenants, Item(on_check=die))
    fleet = tenants.fleet
    assert spaces(tenants)
    assert fleet.inventory.orphans(tenants.list(), fleet.application_specs()) == []
    assert len(fleet.inventory.orphans([], fleet.application_specs())) >= 2
    certificate = tenants.purge("acme")
    assert spaces(tenants) == []
    assert set(certificate.left.values()) == {0}


class Lenient(Projection[CountersView]):
    """Counts dogs, and ignores the error of its view after a change."""

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        with suppress(ValueError), self.view.transaction():
            self.view.incr_created_event_counter(tracking)
            if getattr(domain_event, "trick", "") == "poison":
                raise ValueError


@BOTH
def test_an_error_that_the_projection_ignores_undoes_its_event_only(place: tuple[str, dict[str, str]]) -> None:
    url, settings = place
    with Tenancy(applications=[TrainingSchool], env={"SQLALCHEMY_URL": url, **settings}) as tenants:
        tenants.project(TrainingSchool, Lenient, CountersView)
        tenants.create("acme").get(TrainingSchool).register("Rex", "sit", "poison", "stay")
        with tenants.runner() as runner:
            runner.wait("acme")
        view = tenants.projection(Lenient, "acme").view
        assert isinstance(view, CountersView)
        assert view.get_created_event_counter() == 3
        rebuild(tenants, projection=Lenient.name)
        assert view.get_created_event_counter() == 3
