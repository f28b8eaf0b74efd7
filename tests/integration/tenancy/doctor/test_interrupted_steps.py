"""Interrupted steps are found and completed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tenancy import Tenancy
from tenancy.errors import TenantPurged
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.operations.doctor import examine, repair
from tenancy.storage.provisioner import Provisioner
from tenancy.storage.remover import Remover
from tests.acceptance.commands import Command
from tests.samples.kennels import Kennel
from tests.support.examinations import about, age, fleet, levels, run, tables


def test_interrupted_steps_are_completed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException): ...

    def die(*_: object) -> None:
        raise Killed

    with fleet(url) as tenants:
        tenants.create("good")
        tenants.create("purging")
        with monkeypatch.context() as patch:
            patch.setattr(Provisioner, "create_tables", die)
            patch.setattr(Remover, "drop", die)
            with pytest.raises(Killed):
                tenants.create("begun")
            with pytest.raises(Killed):
                tenants.purge("purging")
        steps = about(examine(tenants.fleet), "steps")
        assert [(step.tenant, step.level) for step in steps] == [("begun", "warning"), ("purging", "warning")]
        age(url, "begun", TenantStatus.PROVISIONING)
        age(url, "purging", TenantStatus.PURGING)
        steps = about(examine(tenants.fleet), "steps")
        assert [(step.tenant, step.level) for step in steps] == [("begun", "failure"), ("purging", "failure")]
        assert f"since {datetime.now(UTC) - timedelta(hours=1):%Y-%m-%d %H}" in steps[0].what
        report = Command(url)("doctor", "--repair", "--actor", "cron")
        assert report.code == 0, report
        assert "repaired: 'begun' is ready." in report.err
        assert "repaired: 'purging' is purged." in report.err
        assert levels(examine(tenants.fleet)) == {}
        assert [tenant.slug for tenant in tenants] == ["begun", "good"]
        assert tenants.history("begun")[-1].actor == "cron"
        tenants["begun"].get(Kennel).register("Fido")


def test_a_tenant_purged_meanwhile_is_not_recreated(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    (table,) = tables(tenants, "acme")
    acme = tenants["acme"]
    run(tenants.settings.url.render_as_string(hide_password=False), f"DROP TABLE {table}")
    every = tenants.list()
    tenants.purge("acme")
    monkeypatch.setattr(tenants.fleet.registry, "list", lambda *_: every)
    list(repair(tenants.fleet))
    assert not tenants.fleet.inventory.of_tenant(acme, tenants.application_specs())
    with pytest.raises(TenantPurged):
        tenants.complete(beginning(acme))


def beginning(tenant: Tenant) -> Tenant:
    """Return a tenant as it was during its creation."""
    return replace(tenant, status=TenantStatus.PROVISIONING)
