"""The runner's coordinator, without a database."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock
from uuid import uuid4

import pytest

from tenancy.errors import RegistryUnavailable
from tenancy.runner.coordinator import Coordinator


def test_unread_changes_are_kept_and_read_again_after_a_pause() -> None:
    registry_cache, assignments = MagicMock(), MagicMock()
    assignments.update.return_value = [], []
    others: dict[str, Any] = {
        name: MagicMock() for name in ("application_cache", "ready", "leases", "quarantine", "sweep")
    }
    coordinator = Coordinator(registry_cache=registry_cache, assignments=assignments, sweeps_registry=True, **others)
    tenant_id = uuid4()
    coordinator.changed({tenant_id})
    coordinator._alarm.clear()  # noqa: SLF001 (as the thread does after waking up)
    registry_cache.read.side_effect = RegistryUnavailable("It does not answer.")
    with pytest.raises(RegistryUnavailable):
        coordinator._apply_changes()  # noqa: SLF001 (one step of the thread)
    assert not coordinator._alarm.is_set()  # noqa: SLF001 (otherwise the thread would retry without a pause)
    registry_cache.read.side_effect, registry_cache.read.return_value = None, {}
    coordinator._apply_changes()  # noqa: SLF001 (as above)
    assert list(assignments.update.call_args.args[1]) == [tenant_id]
