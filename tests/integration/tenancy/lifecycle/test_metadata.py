"""Metadata is read back unchanged from every database, or is refused before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

from tenancy import Tenancy
from tenancy.errors import InvalidArgument
from tests.integration.tenancy.lifecycle.conftest import MakeFleet

CYCLE: dict[str, Any] = {}
CYCLE["again"] = CYCLE
DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]

REFUSED = {
    "NaN": float("nan"),
    "infinity": -float("inf"),
    "NUL": "a\0b",
    "NUL in a key": {"\0": 1},
    "surrogate": ["\ud800"],
    "half a pair": "\ude00\ud83d",
    "number as a key": {1: 2},
    "set": {1},
    "bytes": b"x",
    "too many digits": 10**5000,
    "cycle": CYCLE,
    "depth": DEEP,
}


def test_metadata_other_than_json_is_refused(tenants: Tenancy) -> None:
    tenants.init()
    for value in REFUSED.values():
        with pytest.raises(InvalidArgument, match="The metadata contains something that is not JSON"):
            tenants.create("acme", metadata={"plan": ["gold", value]})
    assert tenants.slugs() == []


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
