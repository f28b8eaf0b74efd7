"""Slugs that the service needs for itself are refused, unless a tenant has had one before."""

from __future__ import annotations

import pytest

from tenancy.errors import InvalidSlug, TenantExists
from tenancy.model.slugs import RESERVED
from tests.acceptance.pages import ROOT
from tests.integration.tenancy.lifecycle.conftest import MakeFleet

REMEDY = "TENANCY_RESERVED_SLUGS"


def test_reserved_slugs_are_refused_by_every_verb(fleet: MakeFleet) -> None:
    tenants = fleet()
    with pytest.raises(InvalidSlug, match=REMEDY):
        tenants.create("WWW")
    tenants.create("acme")
    with pytest.raises(InvalidSlug, match=REMEDY):
        list(tenants.create_many(["globex", "Admin"]))
    with pytest.raises(InvalidSlug, match=REMEDY):
        tenants.rename("acme", "Api")
    with pytest.raises(InvalidSlug, match=REMEDY):
        tenants.adopt("tenancy", table_prefix="old_")
    assert tenants.slugs() == ["acme"]


def test_the_setting_extends_replaces_or_clears_the_list(fleet: MakeFleet) -> None:
    extended = fleet(TENANCY_RESERVED_SLUGS="default, Shop ")
    for slug in ("shop", "www"):
        with pytest.raises(InvalidSlug):
            extended.create(slug)
    replaced = fleet(TENANCY_RESERVED_SLUGS="shop")
    replaced.create("www")
    with pytest.raises(InvalidSlug):
        replaced.create("shop")
    assert fleet(TENANCY_RESERVED_SLUGS="none").create("shop").status == "active"


def test_a_tenant_keeps_a_slug_that_is_reserved_later(fleet: MakeFleet) -> None:
    before = fleet(TENANCY_RESERVED_SLUGS="none").create("www", request_id="form-1")
    tenants = fleet()
    assert tenants["www"].id == before.id
    assert tenants.create("www", exist_ok=True).id == before.id
    assert tenants.create("www", request_id="form-1").id == before.id
    with pytest.raises(TenantExists):
        tenants.create("www")
    assert tenants.rename("www", "WWW", name="Web").name == "Web"
    tenants.rename("www", "web")
    with pytest.raises(InvalidSlug):
        tenants.rename("web", "www")


def test_the_page_lists_all_reserved_slugs() -> None:
    section = (ROOT / "docs" / "tenants.md").read_text(encoding="utf-8").partition("### Reserved slugs")[2]
    listed = section.partition("They are ")[2].partition(".\n")[0].replace(" and ", ", ")
    assert {slug.strip().strip("`") for slug in listed.split(",")} == RESERVED
