"""Steps between versions of tables on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.conversion import milliseconds
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.migrations.steps import Step, Steps
from eventsourcing_sqlalchemy.tables import TableSpec

__all__ = ["PostgreSQLSteps"]


def _to_1(executor: Executor, spec: TableSpec) -> Sequence[str]:  # noqa: ARG001 (a step may read the catalog)
    # The catalog changes and no row: a varchar is stored as a text.
    return [f"ALTER TABLE {spec.name} ALTER COLUMN application_name TYPE text"] if spec.kind == "tracking" else []


class PostgreSQLSteps(Steps):
    """See :class:`Steps`."""

    all: ClassVar[Sequence[Step]] = (_to_1,)

    def begin(self, executor: Executor, dialect: Dialect, settings: EngineSettings, lock_timeout: float) -> None:
        dialect.begin(executor, settings)
        executor.fetch(f"SELECT set_config('lock_timeout', '{milliseconds(lock_timeout)}', true)", prepare=False)
