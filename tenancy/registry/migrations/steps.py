"""The steps from one format of the registry's tables to the next: plain SQL, which no later change of the code alters.

A step must leave the registry usable for processes that still run the code before it: it may add tables, and columns
with a default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from eventsourcing_sqlalchemy.naming import TableName, quote
from tenancy.errors import RegistryMismatch

if TYPE_CHECKING:
    import sqlalchemy as sa

    from tenancy.registry.tables import RegistryTables

__all__ = ["FORMAT", "check_format", "steps_from"]

FORMAT: Final = 6
"""The current format of the registry's tables and events."""

# Tenants of format 1 that were not adopted have tables of version 1.
_VERSIONS: Final = (
    "ALTER TABLE {tenants} ADD COLUMN versions JSON DEFAULT '{{}}' NOT NULL",
    "UPDATE {tenants} SET versions = '{{\"tables\": 1}}' WHERE NOT adopted",
)
_JOBS: Final = """
CREATE TABLE {{jobs}} (
    id {uuid} NOT NULL,
    kind TEXT NOT NULL,
    topic TEXT NOT NULL,
    parameters JSON NOT NULL,
    status TEXT NOT NULL,
    phase TEXT NOT NULL,
    reason TEXT,
    has_check BOOLEAN NOT NULL,
    error_budget TEXT NOT NULL,
    lease_seconds {double} NOT NULL,
    actor TEXT,
    package_version TEXT NOT NULL,
    code_version TEXT,
    created_at {moment} NOT NULL,
    ended_at {moment},
    PRIMARY KEY (id)
)
"""
_JOB_ITEMS: Final = """
CREATE TABLE {{job_items}} (
    job_id {uuid} NOT NULL,
    tenant_id {uuid} NOT NULL,
    number INTEGER NOT NULL,
    is_canary BOOLEAN NOT NULL,
    status TEXT NOT NULL,
    owner TEXT,
    expires {double} NOT NULL,
    attempts INTEGER NOT NULL,
    progress JSON NOT NULL,
    summary TEXT,
    error TEXT,
    sqlstate TEXT,
    frames JSON NOT NULL,
    started {double},
    ended {double},
    PRIMARY KEY (job_id, tenant_id)
)
"""
_INDEXES: Final = (
    "CREATE INDEX {job_items_by_status} ON {job_items} (job_id, status, number)",
    "CREATE INDEX {job_items_by_tenant} ON {job_items} (tenant_id)",
)

_DOMAINS: Final = """
CREATE TABLE {{domains}} (
    tenant_id {uuid} NOT NULL,
    host TEXT NOT NULL,
    serving_host TEXT,
    token TEXT NOT NULL,
    created_at {moment} NOT NULL,
    verified_at {moment},
    PRIMARY KEY (tenant_id, host),
    UNIQUE (serving_host)
)
"""
_OFFLINE_TENANTS: Final = """
CREATE TABLE {{offline}} (
    tenant_id {uuid} NOT NULL,
    changed_at {moment} NOT NULL,
    since {double} NOT NULL,
    PRIMARY KEY (tenant_id)
)
"""


def _to_2(**types: str) -> Sequence[str]:
    return [*_VERSIONS, _JOBS.format(**types), _JOB_ITEMS.format(**types), *_INDEXES]


_HOOKS: Final = (
    """
CREATE TABLE {{process_leases}} (
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    expires {double} NOT NULL,
    PRIMARY KEY (name)
)
""",
    """
CREATE TABLE {{hook_runs}} (
    tenant_id {uuid} NOT NULL,
    hook TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    error TEXT,
    frames JSON NOT NULL,
    started_at {moment} NOT NULL,
    finished_at {moment},
    PRIMARY KEY (tenant_id, hook)
)
""",
    """
CREATE TABLE {{reactions}} (
    name TEXT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (name)
)
""",
    """
CREATE TABLE {{reaction_failures}} (
    tenant_id {uuid} NOT NULL,
    reaction TEXT NOT NULL,
    number BIGINT NOT NULL,
    last_number BIGINT NOT NULL,
    error TEXT NOT NULL,
    frames JSON NOT NULL,
    attempts INTEGER NOT NULL,
    first_at {moment} NOT NULL,
    last_at {moment} NOT NULL,
    retry_at {double} NOT NULL,
    PRIMARY KEY (tenant_id, reaction)
)
""",
)


def _hooks_and_reactions(**types: str) -> Sequence[str]:
    return [statement.format(**types) for statement in _HOOKS]


_USAGE: Final = """
CREATE TABLE {{usage}} (
    tenant_id {uuid} NOT NULL,
    application TEXT NOT NULL,
    position BIGINT NOT NULL,
    events BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    first_at {moment} NOT NULL,
    last_at {moment} NOT NULL,
    window_at {moment} NOT NULL,
    window_events BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, application)
)
"""

# Others of the registry's users queue behind a statement that waits for a lock.
_GIVE_UP_EARLY: Final = "SELECT set_config('lock_timeout', '500', true)"

_POSTGRESQL: Final = {"uuid": "UUID", "moment": "TIMESTAMP WITH TIME ZONE", "double": "DOUBLE PRECISION"}
_SQLITE: Final = {"uuid": "CHAR(32)", "moment": "DATETIME", "double": "DOUBLE"}

_STEPS: Final[Mapping[str, Mapping[int, Sequence[str]]]] = {
    "postgresql": {
        1: [_GIVE_UP_EARLY, *_to_2(**_POSTGRESQL)],
        2: [_GIVE_UP_EARLY, _DOMAINS.format(**_POSTGRESQL)],
        3: [_GIVE_UP_EARLY, _OFFLINE_TENANTS.format(**_POSTGRESQL)],
        4: [_GIVE_UP_EARLY, *_hooks_and_reactions(**_POSTGRESQL)],
        5: [_GIVE_UP_EARLY, _USAGE.format(**_POSTGRESQL)],
    },
    "sqlite": {
        1: _to_2(**_SQLITE),
        2: [_DOMAINS.format(**_SQLITE)],
        3: [_OFFLINE_TENANTS.format(**_SQLITE)],
        4: _hooks_and_reactions(**_SQLITE),
        5: [_USAGE.format(**_SQLITE)],
    },
}


def check_format(known: Any, where: str) -> None:
    """Raise RegistryMismatch unless ``known`` is the current format; ``where`` names the registry's database."""
    if known == FORMAT:
        return
    if isinstance(known, int) and known < FORMAT:
        msg = f"The registry in {where} has the format {known}, and this version needs the format {FORMAT}."
        raise RegistryMismatch(msg, remedy="Migrate it: tenancy migrate")
    msg = f"The registry in {where} has the format {known}, and this version knows formats up to {FORMAT}."
    raise RegistryMismatch(msg, remedy="Install the version that migrated it, or a newer one.")


def steps_from(known: int, dialect: str, rows: RegistryTables) -> list[str]:
    """Return the statements that bring a registry from a format to the current one."""
    names = {name: _rendered(table) for name, table in vars(rows).items() if name != "metadata"}
    names |= {f"job_items_{end}": quote(f"{rows.job_items.name}_{end}") for end in ("by_status", "by_tenant")}
    steps = _STEPS[dialect]
    return [statement.format(**names) for format_ in range(known, FORMAT) for statement in steps[format_]]


def _rendered(table: sa.Table) -> str:
    return str(TableName(table.schema, table.name))
