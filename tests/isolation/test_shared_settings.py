"""Applications of a process share an engine and its settings: conflicting ones are refused, and both applications are
named.
"""

from __future__ import annotations

from typing import Any

import pytest

from eventsourcing_sqlalchemy.errors import SettingsError
from tests.support.applications import Applications, stored_events


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("pool_size", (3, 4)),
        ("max_overflow", (0, 1)),
        ("pool_timeout", (1.0, 2.0)),
        ("lock_timeout", (1.0, 2.0)),
        ("pool_pre_ping", (True, False)),
        ("sqlite_synchronous", ("FULL", "NORMAL")),
    ],
)
def test_conflicting_settings_name_both_applications(sqlite_url: str, setting: str, values: tuple[Any, Any]) -> None:
    with Applications(sqlite_url) as apps:
        first = apps.recorder("First", **{setting: values[0]})
        apps.recorder("Same", **{setting: values[0]})
        apps.recorder("Indifferent")
        with pytest.raises(SettingsError) as caught:
            apps.recorder("Second", **{setting: values[1]})
        variable = f"SQLALCHEMY_{setting.upper()}"
        for part in ("'First'", "'Second'", f"{variable}={values[0]}", f"{variable}={values[1]}"):
            assert part in str(caught.value)
        assert caught.value.variable == variable
        first.insert_events(stored_events())


def test_setting_that_conflicts_with_a_default_names_the_engine(sqlite_url: str) -> None:
    with Applications(sqlite_url) as apps:
        apps.recorder("First")
        with pytest.raises(SettingsError, match=r"'Second'.*POOL_SIZE=7.*the engine was created with.*POOL_SIZE=5"):
            apps.recorder("Second", pool_size=7)
