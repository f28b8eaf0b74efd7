"""Domains of tenants: claimed, verified and removed; a host leads to one tenant at most."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import sqlalchemy as sa

from tenancy import Domain, Tenancy
from tenancy.errors import (
    DomainExists,
    DomainNotFound,
    DomainNotVerified,
    InvalidDomain,
    TenancyError,
    TenantNotFound,
    TenantPurged,
)
from tenancy.registry.cache import DELAY
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.support.deadlines import run_together, wait_until

HOST = "shop.acme.example"

pytestmark = pytest.mark.usefixtures("no_purge_delay")


def verified(tenants: Tenancy, slug: str, host: str = HOST) -> Domain:
    """Return a verified domain of a tenant."""
    return tenants.domains.verify(slug, host, tenants.domains.add(slug, host).token)


def slug_at(tenants: Tenancy, host: str = HOST) -> str | None:
    tenant = tenants.domains.find(host)
    return None if tenant is None else tenant.slug


def test_life_of_a_domain(tenants: Tenancy) -> None:
    tenants.create("acme")
    domain = tenants.domains.add("acme", "Shop.ACME.example.:443", actor="u-1")
    assert (domain.host, domain.is_verified, len(domain.token) >= 32) == (HOST, False, True)
    assert tenants.domains.add("acme", HOST) == domain  # idempotent
    assert slug_at(tenants) is None
    assert tenants.domains.list("acme") == [domain]
    found = tenants.domains.verify("acme", HOST, domain.token, actor="u-1")
    assert found.is_verified
    assert tenants.domains.verify("acme", HOST, domain.token) == found
    assert tenants.domains.list() == [found] == [tenants.domains.get("acme", HOST)]
    assert slug_at(tenants) == slug_at(tenants, "SHOP.acme.example:80") == "acme"
    tenant = tenants.domains.find(HOST)
    assert tenant is not None
    assert tenant.env()  # it is that of the fleet
    assert tenants.domains.remove("acme", HOST, actor="u-1") == found
    assert (tenants.domains.list(), slug_at(tenants)) == ([], None)
    changes = [(each.action, each.actor, each.remark) for each in tenants.history("acme")[2:]]
    assert changes == [(action, "u-1", HOST) for action in ("add_domain", "verify_domain", "remove_domain")]


def test_only_the_current_token_verifies(tenants: Tenancy) -> None:
    tenants.create("acme")
    former = tenants.domains.add("acme", HOST).token
    tenants.domains.remove("acme", HOST)
    current = tenants.domains.add("acme", HOST).token
    assert current != former
    for token in (former, "", "\ud800", current[:-1]):
        with pytest.raises(DomainNotVerified, match="The token is not that of the domain") as raised:
            tenants.domains.verify("acme", HOST, token)
        assert current not in str(raised.value)
    assert slug_at(tenants) is None
    with pytest.raises(TypeError, match="The token is None"):
        tenants.domains.verify("acme", HOST, None)  # type: ignore[arg-type]


def test_a_claim_blocks_no_other_tenant(tenants: Tenancy) -> None:
    """Otherwise a customer could keep others from using their own domains."""
    tenants.create("acme")
    tenants.create("squatter")
    claimed = tenants.domains.add("squatter", HOST)
    domain = verified(tenants, "acme")
    assert domain.token != claimed.token
    assert slug_at(tenants) == "acme"
    with pytest.raises(DomainExists, match="belongs to another tenant") as raised:
        tenants.domains.verify("squatter", HOST, claimed.token)
    assert "acme" not in str(raised.value).replace(HOST, "")
    tenants.create("late")
    with pytest.raises(DomainExists):
        tenants.domains.add("late", HOST)
    assert slug_at(tenants) == "acme"
    assert [change.action for change in tenants.history("squatter")][2:] == ["add_domain"]


def test_one_of_many_verifies_at_once(tenants: Tenancy) -> None:
    slugs = [f"t{number}" for number in range(4)]
    for _ in tenants.create_many(slugs):
        pass
    tokens = {slug: tenants.domains.add(slug, HOST).token for slug in slugs}

    def call(slug: str) -> Callable[[], str | None]:
        def verify() -> str | None:
            with suppress(DomainExists):
                tenants.domains.verify(slug, HOST, tokens[slug])
                return slug
            return None

        return verify

    (winner,) = [slug for slug in run_together([call(slug) for slug in slugs]) if slug is not None]
    assert slug_at(tenants) == winner
    assert [each.is_verified for each in tenants.domains.list()].count(True) == 1


def test_other_processes_follow_within_a_second(tenants: Tenancy, elsewhere: Tenancy) -> None:
    tenants.create("acme")
    tenants.create("globex")
    assert slug_at(elsewhere) is None

    def seen(slug: str | None) -> None:
        wait_until(lambda: slug_at(elsewhere) == slug, f"that the host leads to {slug}", DELAY)

    verified(tenants, "acme")
    seen("acme")
    tenants.rename("acme", "apex")
    seen("apex")
    tenants.domains.remove("apex", HOST)
    seen(None)
    verified(tenants, "globex")
    seen("globex")
    tenants.purge("globex")
    seen(None)


def test_a_reused_host_inherits_nothing(tenants: Tenancy) -> None:
    acme = tenants.create("acme")
    former = verified(tenants, "acme")
    certificate = tenants.purge("acme")
    assert certificate.left["registry rows"] == 0
    assert tenants.domains.list() == []
    other = tenants.create("acme")  # the slug, too
    assert slug_at(tenants) is None
    domain = tenants.domains.add("acme", HOST)
    assert (domain.tenant_id, domain.is_verified) == (other.id, False)
    assert domain.token != former.token
    with pytest.raises(DomainNotVerified):
        tenants.domains.verify("acme", HOST, former.token)
    assert HOST not in str([change.remark for change in tenants.history(str(acme.id))])


def test_a_remaining_domain_is_counted(tenants: Tenancy) -> None:
    acme = tenants.create("acme")
    before = tenants.fleet.registry.remaining_rows(acme.id)
    tenants.domains.add("acme", HOST)
    # The domain, and the remark of the history.
    assert tenants.fleet.registry.remaining_rows(acme.id) == before + 2


def test_a_tenant_that_is_being_purged_gets_no_domain(tenants: Tenancy) -> None:
    acme = tenants.create("acme")
    with tenants.fleet.registry.writing_rows() as session:
        rows = tenants.fleet.registry.rows.tenants
        session.execute(sa.update(rows).where(rows.c.id == acme.id).values(status="purging"))
    with pytest.raises(TenantPurged):
        tenants.domains.add("acme", HOST)


@pytest.mark.parametrize("action", ["suspend", "archive", "delete"])
def test_the_host_of_an_unavailable_tenant_leads_to_it(tenants: Tenancy, action: str) -> None:
    tenants.create("acme")
    verified(tenants, "acme")
    getattr(tenants, action)("acme")
    assert slug_at(tenants) == "acme"


def test_a_tenant_can_be_passed_itself(tenants: Tenancy) -> None:
    acme = tenants.create("acme")
    tenants.rename("acme", "apex")
    tenants.create("acme")
    domain = tenants.domains.add(acme, HOST)
    assert domain.tenant_id == acme.id
    assert tenants.domains.list(acme) == [domain]
    assert tenants.domains.list("acme") == []


@pytest.mark.parametrize("slug", ["acme", 'Ünï-cödé "x"'])
def test_unknown_tenants_and_domains(tenants: Tenancy, slug: str) -> None:
    tenants.init()
    for call in (tenants.domains.add, tenants.domains.get, tenants.domains.remove):
        with pytest.raises(TenantNotFound):
            call(slug, HOST)
    with pytest.raises(TenantNotFound):
        tenants.domains.list(slug)
    tenants.create(slug)
    assert tenants.domains.list(slug) == []
    calls: list[Callable[[str, str], Domain]] = [
        tenants.domains.get,
        tenants.domains.remove,
        lambda slug, host: tenants.domains.verify(slug, host, "token"),
    ]
    for each in calls:
        with pytest.raises(DomainNotFound, match=f"has no domain '{HOST}'"):
            each(slug, HOST)
        with pytest.raises(InvalidDomain):
            each(slug, "no host")
    with pytest.raises(TypeError, match="The tenant is of type int"):
        tenants.domains.list(5)  # type: ignore[arg-type]


def test_a_failed_change_leaves_nothing(tenants: Tenancy) -> None:
    tenants.create("acme")
    with pytest.raises(TenancyError, match="Invalid actor"):
        tenants.domains.add("acme", HOST, actor="Ann Smith")
    assert tenants.domains.list() == []


def test_many_domains_are_read_in_one_query(fleet: MakeFleet, elsewhere: Tenancy) -> None:
    tenants = fleet()
    for tenant in tenants.create_many([f"t{number}" for number in range(20)]):
        verified(tenants, tenant.slug, f"{tenant.slug}.example")
    assert [slug_at(elsewhere, f"t{number}.example") for number in range(21)] == [
        *(f"t{number}" for number in range(20)),
        None,
    ]
