"""The keeper of a runner, without a database."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock
from uuid import uuid4

import pytest

from tenancy.errors import RegistryUnavailable
from tenancy.runner.keeper import Keeper


def test_changes_that_cannot_be_read_are_kept_and_asked_for_after_a_pause() -> None:
    directory, courses = MagicMock(), MagicMock()
    courses.update.return_value = [], []
    others: dict[str, Any] = {
        name: MagicMock() for name in ("applications", "ready", "leases", "troubles", "sweep", "metrics")
    }
    keeper = Keeper(directory=directory, courses=courses, sweeps_registry=True, **others)
    tenant_id = uuid4()
    keeper.changed({tenant_id})
    keeper._alarm.clear()  # noqa: SLF001 (as the thread does when it has woken up)
    directory.read.side_effect = RegistryUnavailable("It does not answer.")
    with pytest.raises(RegistryUnavailable):
        keeper._see_changes()  # noqa: SLF001 (one step of the thread)
    assert not keeper._alarm.is_set()  # noqa: SLF001 (or the thread would ask again at once, for as long as it fails)
    directory.read.side_effect, directory.read.return_value = None, {}
    keeper._see_changes()  # noqa: SLF001 (as above)
    assert list(courses.update.call_args.args[1]) == [tenant_id]
