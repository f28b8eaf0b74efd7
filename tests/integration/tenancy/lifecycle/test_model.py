"""The lifecycle against a model: after any sequence of calls, the fleet equals a simple model."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tenancy import Tenancy, TenantStatus
from tenancy.errors import TenantExists, TenantNotFound, TenantUnavailable, TransitionRefused
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel
from tests.support import catalog

SLUGS = st.sampled_from(["acme", "globex", "initech"])

_REPEAT = int(os.environ.get("TEST_REPEAT", "1"))


@dataclass
class Model:
    """The expected state of a tenant."""

    id: UUID
    status: str = "active"
    reads: bool = False
    before: list[str] = field(default_factory=list)
    dogs: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=lambda: ["create", "activate"])


class LifecycleMachine(RuleBasedStateMachine):
    """Calls a verb on one of three tenants at a time."""

    tenants: Tenancy
    url: str

    @initialize()
    def begin(self) -> None:
        """Start without tenants: remove those of the last example."""
        self.model: dict[str, Model] = {}
        self.handed_out: dict[UUID, Kennel] = {}
        self.tenants.init()
        list(self.tenants.purge_many(self.tenants.slugs()))

    @rule(slug=SLUGS, exist_ok=st.booleans())
    def create(self, slug: str, *, exist_ok: bool) -> None:
        known = self.model.get(slug)
        if known is not None and not exist_ok:
            with pytest.raises(TenantExists):
                self.tenants.create(slug)
            return
        if known is not None and known.status != "active":
            with pytest.raises(TenantUnavailable, match=known.status):
                self.tenants.create(slug, exist_ok=True)
            return
        made = self.tenants.create(slug, exist_ok=exist_ok)
        if known is None:
            assert made.id not in self.handed_out
            self.model[slug] = Model(made.id)
        else:
            assert (made.id, made.status) == (known.id, known.status)

    @rule(slug=SLUGS, new_slug=SLUGS)
    def rename(self, slug: str, new_slug: str) -> None:
        if slug not in self.model:
            with pytest.raises(TenantNotFound):
                self.tenants.rename(slug, new_slug)
        elif new_slug in self.model and new_slug != slug:
            with pytest.raises(TenantExists):
                self.tenants.rename(slug, new_slug)
        else:
            self.tenants.rename(slug, new_slug)
            if slug != new_slug:
                self.model[slug].actions.append("rename")
                self.model[new_slug] = self.model.pop(slug)

    @rule(slug=SLUGS, reads=st.booleans())
    def suspend(self, slug: str, *, reads: bool) -> None:
        def to(tenant: Model) -> Model | None:
            if tenant.status == "suspended":
                return replace(tenant, reads=reads) if tenant.reads != reads else tenant
            return replace(tenant, status="suspended", reads=reads) if tenant.status == "active" else None

        self._do(slug, "suspend", to, reads=reads)

    @rule(slug=SLUGS)
    def resume(self, slug: str) -> None:
        def to(tenant: Model) -> Model | None:
            if tenant.status == "active":
                return tenant
            return replace(tenant, status="active") if tenant.status == "suspended" else None

        self._do(slug, "resume", to)

    @rule(slug=SLUGS)
    def archive(self, slug: str) -> None:
        self._leave(slug, "archive", "archived", ("active", "suspended"))

    @rule(slug=SLUGS)
    def delete(self, slug: str) -> None:
        self._leave(slug, "delete", "deleted", ("active", "suspended", "archived"))

    @rule(slug=SLUGS)
    def restore(self, slug: str) -> None:
        self._return(slug, "restore", "archived", ("active", "suspended"))

    @rule(slug=SLUGS)
    def undelete(self, slug: str) -> None:
        self._return(slug, "undelete", "deleted", ("active", "suspended", "archived"))

    @rule(slug=SLUGS)
    def purge(self, slug: str) -> None:
        if slug not in self.model:
            with pytest.raises(TenantNotFound):
                self.tenants.purge(slug)
            return
        certificate = self.tenants.purge(slug)
        gone = self.model.pop(slug)
        assert certificate.tenant_id == gone.id
        assert set(certificate.left.values()) == {0}
        history = self.tenants.history(str(gone.id))
        assert [change.action for change in history] == [*gone.actions, "purge", "purge"]

    @rule(slug=SLUGS, dog=st.sampled_from(["Fido", "Rex"]))
    def write(self, slug: str, dog: str) -> None:
        tenant = self.model.get(slug)
        if tenant is None:
            with pytest.raises(TenantNotFound):
                self.tenants.application(Kennel, slug)
        elif tenant.status == "active":
            self._kennel(slug).register(dog)
            tenant.dogs.append(dog)
        elif tenant.id in self.handed_out:
            with pytest.raises(TenantUnavailable):
                self.handed_out[tenant.id].register(dog)

    def _kennel(self, slug: str) -> Kennel:
        kennel = self.tenants.application(Kennel, slug)
        assert self.handed_out.setdefault(self.model[slug].id, kennel) is kennel
        return kennel

    def _do(self, slug: str, action: str, to: Callable[[Model], Model | None], **options: bool) -> None:
        call = getattr(self.tenants, action)
        tenant = self.model.get(slug)
        if tenant is None:
            with pytest.raises(TenantNotFound):
                call(slug, **options)
            return
        after = to(tenant)
        if after is None:
            with pytest.raises(TransitionRefused):
                call(slug, **options)
            return
        assert call(slug, **options).status == after.status
        self.model[slug] = after if after is tenant else replace(after, actions=[*tenant.actions, action])

    def _leave(self, slug: str, action: str, status: str, sources: tuple[str, ...]) -> None:
        def to(tenant: Model) -> Model | None:
            if tenant.status == status:
                return tenant
            if tenant.status not in sources:
                return None
            return replace(tenant, status=status, before=[*tenant.before, tenant.status])

        self._do(slug, action, to)

    def _return(self, slug: str, action: str, status: str, already: tuple[str, ...]) -> None:
        def to(tenant: Model) -> Model | None:
            if tenant.status == status:
                return replace(tenant, status=tenant.before[-1], before=tenant.before[:-1])
            return tenant if tenant.status in (*already, "archived")[: len(already)] else None

        self._do(slug, action, to)

    @invariant()
    def registry_equals_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        found = {tenant.slug: tenant for tenant in self.tenants}
        assert found.keys() == self.model.keys()
        for slug, expected in self.model.items():
            tenant = found[slug]
            assert tenant == self.tenants[slug]
            assert (tenant.id, tenant.status, list(tenant.previous)) == (expected.id, expected.status, expected.before)
            assert (tenant.due_at is not None) == (expected.status == "deleted")
            history = self.tenants.history(slug)
            assert [change.action for change in history] == expected.actions
            assert history[-1].status == expected.status

    @invariant()
    def tables_are_those_of_the_tenants(self) -> None:
        if not hasattr(self, "model"):
            return
        names = catalog.tenants(self.url)
        placements = [str(tenant.placement) for tenant in self.tenants]
        assert all(any(name.startswith(placement) for placement in placements) for name in names)
        assert all(any(name.startswith(placement) for name in names) for placement in placements)

    @invariant()
    def events_are_those_of_the_tenants(self) -> None:
        for slug, tenant in getattr(self, "model", {}).items():
            if tenant.status == "active" or (tenant.status == "suspended" and tenant.reads):
                assert self._kennel(slug).names() == tenant.dogs
            else:
                with pytest.raises(TenantUnavailable):
                    self.tenants.application(Kennel, slug)


@pytest.mark.usefixtures("no_purge_delay")
def test_lifecycle_equals_the_model(fleet: MakeFleet, url: str) -> None:
    tenants = fleet(Kennel)
    machine = type("Machine", (LifecycleMachine,), {"tenants": tenants, "url": url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=5 * _REPEAT,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_every_status_is_in_the_model() -> None:
    known = {"active", "suspended", "archived", "deleted"}
    assert {str(status) for status in TenantStatus} - known == {"provisioning", "purging"}
