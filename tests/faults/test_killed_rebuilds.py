"""A rebuild that is killed at any moment resumes; until it ends well, the old view serves."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tenancy import Tenancy
from tests.integration.tenancy.rebuilding.conftest import place, tenants  # noqa: F401 (fixtures)
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.rebuild_process import start
from tests.support.rebuilds import expected_content, fill, ledger, objects, spaces


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("place", ["psycopg", "sqlite"], indirect=True)
def test_rebuild_survives_kills(
    tenants: Tenancy,  # noqa: F811
    place: tuple[str, dict[str, str]],  # noqa: F811
    repeat: Callable[[int], range],
    tmp_path: Path,
) -> None:
    """With TEST_REPEAT=25, fifty kills on each database."""
    fill(tenants, "acme", 150)
    view = ledger(tenants)
    chance = random.Random(7)  # noqa: S311 (the moments of the kills, not a secret)
    kills, rounds = 0, 0
    wanted = len(repeat(2))
    with tenants.runner() as runner:
        runner.wait("acme", DEADLINE_SECONDS)
        before = objects(tenants)
        longest = _seconds_of(place, tmp_path / "measured")
        while kills < wanted:
            rounds += 1
            path = tmp_path / f"item-{rounds}"
            while True:
                with start(*place, path) as process:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(chance.uniform(0.0, longest))
                    process.kill()
                    was_killed = process.wait(DEADLINE_SECONDS) != 0
                fill(tenants, "acme", 1)
                runner.wait("acme", DEADLINE_SECONDS)
                assert view.content() == expected_content(tenants)
                kills += was_killed
                if not was_killed or kills >= wanted:
                    break
            with start(*place, path) as process:
                assert process.wait(DEADLINE_SECONDS) == 0
            assert view.content() == expected_content(tenants)
            assert objects(tenants) == before
        assert spaces(tenants) == []


def _seconds_of(place: tuple[str, dict[str, str]], path: Path) -> float:  # noqa: F811
    with start(*place, path) as process:
        began = time.monotonic()
        assert process.wait(DEADLINE_SECONDS) == 0
    return time.monotonic() - began
