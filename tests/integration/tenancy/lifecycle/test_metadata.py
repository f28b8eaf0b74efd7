"""Metadata is read back unchanged from every database, or is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest

from tenancy import Tenancy
from tenancy.errors import InvalidArgument
from tenancy.model.metadata import MAX_BYTES
from tests.integration.tenancy.lifecycle.conftest import MakeFleet

CYCLE: dict[str, Any] = {}
CYCLE["again"] = CYCLE
DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]

# Each value as the second of a list, and how the error begins.
REFUSED: dict[str, tuple[Any, str]] = {
    "NaN": (float("nan"), 'metadata["plan"][1] is NaN'),
    "infinity": (-float("inf"), 'metadata["plan"][1] is NaN or infinite'),
    "NUL": ("a\0b", 'metadata["plan"][1] contains a NUL'),
    "NUL in a key": ({"\0": 1}, 'metadata["plan"][1] has the key "\\u0000"'),
    "surrogate": (["\ud800"], 'metadata["plan"][1][0] contains a NUL or a lone surrogate'),
    "half a pair": ("\ude00\ud83d", 'metadata["plan"][1] contains'),
    "number as a key": ({1: 2}, 'metadata["plan"][1] has a key of type int'),
    "set": ({1}, 'metadata["plan"][1] is of type set'),
    "bytes": (b"x", 'metadata["plan"][1] is of type bytes'),
    "too many digits": (10**5000, 'metadata["plan"][1] is an integer'),
    "cycle": (CYCLE, "metadata is nested"),
    "depth": (DEEP, "metadata is nested"),
    "size": ("x" * MAX_BYTES, f"The metadata has {MAX_BYTES + 22} bytes"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_metadata_other_than_json_is_refused_with_its_place(what: str, tenants: Tenancy) -> None:
    value, beginning = REFUSED[what]
    metadata = {"plan": ["gold", value]}
    tenants.create("acme", metadata={"kept": True})
    calls: list[Callable[[], object]] = [
        lambda: tenants.create("globex", metadata=metadata),
        lambda: tenants.update("acme", metadata=metadata),
        lambda: tenants.update("acme", metadata=metadata, replace=True),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument) as caught:
            call()
        assert str(caught.value).startswith(beginning)
    assert {tenant.slug: tenant.metadata for tenant in tenants.list()} == {"acme": {"kept": True}}


def test_the_size_of_the_merged_metadata_is_limited(tenants: Tenancy) -> None:
    tenants.create("acme", metadata={"a": "x" * (MAX_BYTES - 9)})
    with pytest.raises(InvalidArgument, match=f"{MAX_BYTES} are allowed"):
        tenants.update("acme", metadata={"b": 1})
    assert list(tenants["acme"].metadata) == ["a"]


@pytest.mark.parametrize("driver", ["pysqlite", "psycopg2", "psycopg", "pg8000"])
def test_metadata_is_read_back_unchanged(driver: str, make_fleet: Any, request: pytest.FixtureRequest) -> None:
    if driver == "pysqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        server, database = (request.getfixturevalue(f"postgres_{what}") for what in ("server", "database"))
        url = server.url(database, driver)
    fleet: MakeFleet = make_fleet(url)
    metadata = {"Ü": "ü \U0001f600 \\u0000 \x1b", "n": 10**100, "f": 1e-300, "none": None, "list": [True, {}]}
    with fleet() as tenants:
        tenants.create("acme", metadata=metadata)
        (read,) = tenants.list()
        assert read.metadata == metadata
        tenants.update("acme", metadata=metadata, replace=True)
        assert len(tenants.history("acme")) == 2, "the same metadata is no change"


class Plan(StrEnum):
    """A text of the code."""

    GOLD = "gold"


def test_a_new_tenant_has_the_metadata_that_the_registry_returns(tenants: Tenancy) -> None:
    created = tenants.create("acme", metadata={"plan": Plan.GOLD, "pair": (1, 2)})
    assert created.metadata == tenants["acme"].metadata == {"plan": "gold", "pair": [1, 2]}
    assert type(created.metadata["plan"]) is str
