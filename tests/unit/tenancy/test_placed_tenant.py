"""TENANCY_TENANT in a fleet's process: text that carries a placement."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from uuid import UUID

from eventsourcing.utils import Environment

from tenancy.isolation.environment import TENANT, PlacedTenant, local_variables, variables
from tenancy.model.application_spec import ApplicationSpec
from tenancy.model.placement import Placement
from tenancy.settings import TenancySettings

ID = UUID(int=0x12345)
SETTINGS = TenancySettings.read({"SQLALCHEMY_URL": "postgresql://user:canary-password@host/db"})
PLACEMENT = Placement("acme_{application}", "x_")
SHOP = ApplicationSpec("Shop", "m:Shop", ("events",), "uuid", creates_extra_tables=False)


def placed() -> PlacedTenant:
    return PlacedTenant(ID, PLACEMENT, SETTINGS)


def test_it_is_the_id_as_text() -> None:
    assert placed() == str(ID)
    assert repr(placed()) == repr(str(ID))
    assert json.dumps({TENANT: placed()}) == json.dumps({TENANT: str(ID)})


def test_copies_for_other_processes_carry_no_placement() -> None:
    for copy in (pickle.loads(pickle.dumps(placed())), deepcopy(placed())):  # noqa: S301 (our own)
        assert type(copy) is str
        assert copy == str(ID)


def test_variables_of_this_process_and_of_others_differ_in_it_alone() -> None:
    here, there = (each(SETTINGS, PLACEMENT, ID, [SHOP]) for each in (local_variables, variables))
    assert here == there
    assert [key for key in here if type(here[key]) is not str] == [TENANT, f"SHOP_{TENANT}"]
    assert [key for key in there if type(there[key]) is not str] == []


def test_copies_of_an_environment_keep_the_placement() -> None:
    here = Environment("Shop", {**local_variables(SETTINGS, PLACEMENT, ID, [SHOP])})
    tenant = Environment("Bar", dict(here)).get(TENANT)
    assert isinstance(tenant, PlacedTenant)
    location = tenant.location("Bar")
    assert (location.schema, location.table_prefix, location.url) == ("acme_bar", "x_", SETTINGS.url)
    assert "canary-password" not in repr(location)
