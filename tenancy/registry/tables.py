"""The registry's tables: everything that may name a person or a customer, and the keys for finding tenants."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from tenancy.arguments import check_type
from tenancy.errors import TenancyError
from tenancy.model.metadata import can_be_stored
from tenancy.model.placement import Placement
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.model.versions import Versions

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["RegistryTables", "check_texts", "to_row", "to_tenant"]


class _Moment(TypeDecorator[datetime]):
    """A time with a zone, also in databases that do not store it."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class RegistryTables:
    """The tables, in a schema or with a prefix of their names."""

    def __init__(self, schema: str | None, prefix: str) -> None:
        self.metadata = sa.MetaData(schema=schema)
        self.tenants = sa.Table(
            f"{prefix}tenants",
            self.metadata,
            sa.Column("id", sa.Uuid, primary_key=True),
            sa.Column("slug", sa.Text, nullable=False, unique=True),
            sa.Column("name", sa.Text, nullable=False),
            sa.Column("status", sa.Text, nullable=False),
            sa.Column("previous", sa.Text, nullable=False),
            sa.Column("reads", sa.Boolean, nullable=False),
            sa.Column("placement", sa.Text, nullable=False, unique=True),
            sa.Column("owns_schema", sa.Boolean, nullable=False),
            sa.Column("adopted", sa.Boolean, nullable=False),
            sa.Column("metadata", sa.JSON, nullable=False),
            sa.Column("request_id", sa.Text, unique=True),
            sa.Column("reason", sa.Text),
            sa.Column("created_at", _Moment, nullable=False),
            sa.Column("changed_at", _Moment, nullable=False),
            sa.Column("due_at", _Moment),
            # The default is for processes of earlier versions, which do not know the column.
            sa.Column("versions", sa.JSON, nullable=False, server_default="{}"),
        )
        self.remarks = sa.Table(
            f"{prefix}remarks",
            self.metadata,
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("text", sa.Text, nullable=False),
        )
        self.tombstones = sa.Table(
            f"{prefix}tombstones",
            self.metadata,
            sa.Column("id", sa.Uuid, primary_key=True),
            sa.Column("slug_hash", sa.Text, nullable=False),
            sa.Column("created_at", _Moment, nullable=False),
            sa.Column("purged_at", _Moment, nullable=False),
        )
        self.fleet_settings = sa.Table(
            f"{prefix}fleet_settings",
            self.metadata,
            sa.Column("key", sa.Text, primary_key=True),
            sa.Column("value", sa.JSON, nullable=False),
        )
        self.encodings = sa.Table(
            f"{prefix}encodings",
            self.metadata,
            sa.Column("application", sa.Text, primary_key=True),
            sa.Column("cipher", sa.Text, nullable=False),
            sa.Column("compressor", sa.Text, nullable=False),
        )
        self.offline = sa.Table(
            f"{prefix}offline_tenants",
            self.metadata,
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            # The change of status that the row is about.
            sa.Column("changed_at", _Moment, nullable=False),
            # Seconds since 1970, by the database's clock.
            sa.Column("since", sa.Double, nullable=False),
        )
        self.failures = sa.Table(
            f"{prefix}runner_failures",
            self.metadata,
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            sa.Column("follower", sa.Text, primary_key=True),
            sa.Column("leader", sa.Text, nullable=False),
            sa.Column("notification_id", sa.BigInteger),
            sa.Column("error", sa.Text, nullable=False),
            sa.Column("frames", sa.JSON, nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("first_at", _Moment, nullable=False),
            sa.Column("last_at", _Moment, nullable=False),
            sa.Column("is_quarantined", sa.Boolean, nullable=False),
        )
        self.processes = sa.Table(
            f"{prefix}runner_processes",
            self.metadata,
            sa.Column("owner", sa.Text, primary_key=True),
            # Seconds since 1970, by the database's clock.
            sa.Column("expires", sa.Double, nullable=False),
            # Failing activities other than followers.
            sa.Column("failing", sa.Text),
        )
        self.leases = sa.Table(
            f"{prefix}runner_leases",
            self.metadata,
            sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("owner", sa.Text),
            sa.Column("expires", sa.Double, nullable=False),
        )
        self.domains = sa.Table(
            f"{prefix}domains",
            self.metadata,
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            sa.Column("host", sa.Text, primary_key=True),
            # The host once it is verified, otherwise NULL. Any tenant may claim a host, and only one can have it.
            sa.Column("serving_host", sa.Text, unique=True),
            sa.Column("token", sa.Text, nullable=False),
            sa.Column("created_at", _Moment, nullable=False),
            sa.Column("verified_at", _Moment),
        )
        self.usage = sa.Table(
            f"{prefix}usage",
            self.metadata,
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            sa.Column("application", sa.Text, primary_key=True),
            # All events up to this id are counted.
            sa.Column("position", sa.BigInteger, nullable=False),
            sa.Column("events", sa.BigInteger, nullable=False),
            sa.Column("bytes", sa.BigInteger, nullable=False),
            sa.Column("first_at", _Moment, nullable=False),
            sa.Column("last_at", _Moment, nullable=False),
            sa.Column("window_at", _Moment, nullable=False),
            sa.Column("window_events", sa.BigInteger, nullable=False),
        )
        self.jobs = sa.Table(
            f"{prefix}jobs",
            self.metadata,
            sa.Column("id", sa.Uuid, primary_key=True),
            sa.Column("kind", sa.Text, nullable=False),
            # Where processes import the kind from.
            sa.Column("topic", sa.Text, nullable=False),
            sa.Column("parameters", sa.JSON, nullable=False),
            sa.Column("status", sa.Text, nullable=False),
            sa.Column("phase", sa.Text, nullable=False),
            # Why a halted job has stopped.
            sa.Column("reason", sa.Text),
            sa.Column("has_check", sa.Boolean, nullable=False),
            sa.Column("error_budget", sa.Text, nullable=False),
            sa.Column("lease_seconds", sa.Double, nullable=False),
            sa.Column("actor", sa.Text),
            sa.Column("package_version", sa.Text, nullable=False),
            # The version of the user's code, if the fleet names one.
            sa.Column("code_version", sa.Text),
            sa.Column("created_at", _Moment, nullable=False),
            sa.Column("ended_at", _Moment),
        )
        self.job_items = sa.Table(
            f"{prefix}job_items",
            self.metadata,
            sa.Column("job_id", sa.Uuid, primary_key=True),
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            # Items are claimed in this order; canaries come first.
            sa.Column("number", sa.Integer, nullable=False),
            sa.Column("is_canary", sa.Boolean, nullable=False),
            sa.Column("status", sa.Text, nullable=False),
            sa.Column("owner", sa.Text),
            # Seconds since 1970, by the database's clock; so are the times below.
            sa.Column("expires", sa.Double, nullable=False),
            # Starts since the last recorded progress.
            sa.Column("attempts", sa.Integer, nullable=False),
            # How far an interrupted item has come; for the operation to interpret.
            sa.Column("progress", sa.JSON, nullable=False),
            # What is to be done; later what was done, or why the item was skipped. None for a purged tenant.
            sa.Column("summary", sa.Text),
            sa.Column("error", sa.Text),
            sa.Column("sqlstate", sa.Text),
            sa.Column("frames", sa.JSON, nullable=False),
            sa.Column("started", sa.Double),
            sa.Column("ended", sa.Double),
            # For claims, counts, and purges.
            sa.Index(f"{prefix}job_items_by_status", "job_id", "status", "number"),
            sa.Index(f"{prefix}job_items_by_tenant", "tenant_id"),
        )
        self.process_leases = sa.Table(
            f"{prefix}process_leases",
            self.metadata,
            sa.Column("name", sa.Text, primary_key=True),
            sa.Column("owner", sa.Text, nullable=False),
            # Seconds since 1970, by the database's clock; so is retry_at below.
            sa.Column("expires", sa.Double, nullable=False),
        )
        self.hook_runs = sa.Table(
            f"{prefix}hook_runs",
            self.metadata,
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            sa.Column("hook", sa.Text, primary_key=True),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("error", sa.Text),
            sa.Column("frames", sa.JSON, nullable=False),
            sa.Column("started_at", _Moment, nullable=False),
            # The marker: the hook does not run again for this tenant.
            sa.Column("finished_at", _Moment),
        )
        self.reactions = sa.Table(
            f"{prefix}reactions",
            self.metadata,
            sa.Column("name", sa.Text, primary_key=True),
            # All changes up to this one are processed, or behind a failure.
            sa.Column("position", sa.BigInteger, nullable=False),
        )
        # Kept when a tenant is purged, so that its reactions still run. No column can name a customer.
        self.reaction_failures = sa.Table(
            f"{prefix}reaction_failures",
            self.metadata,
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            sa.Column("reaction", sa.Text, primary_key=True),
            # The change that fails, and the last one that waits behind it, by their numbers in the tenant's history.
            sa.Column("number", sa.BigInteger, nullable=False),
            sa.Column("last_number", sa.BigInteger, nullable=False),
            sa.Column("error", sa.Text, nullable=False),
            sa.Column("frames", sa.JSON, nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("first_at", _Moment, nullable=False),
            sa.Column("last_at", _Moment, nullable=False),
            sa.Column("retry_at", sa.Double, nullable=False),
        )

    @property
    def of_tenants(self) -> tuple[sa.Table, ...]:
        """The tables whose rows belong to a tenant, by ``tenant_id``, and are erased with it."""
        return self.remarks, self.failures, self.offline, self.domains, self.hook_runs, self.usage


def to_row(tenant: Tenant) -> dict[str, Any]:
    """Return a tenant's row."""
    placement = tenant.placement
    return {
        "id": tenant.id,
        "slug": tenant.slug,
        "name": tenant.name,
        "status": str(tenant.status),
        "previous": " ".join(tenant.previous),
        "reads": tenant.reads,
        "placement": json.dumps([placement.schema, placement.table_prefix]),
        "owns_schema": placement.owns_schema,
        "adopted": tenant.adopted,
        "metadata": dict(tenant.metadata),
        "request_id": tenant.request_id,
        "reason": tenant.reason,
        "created_at": tenant.created_at,
        "changed_at": tenant.changed_at,
        "due_at": tenant.due_at,
        "versions": tenant.versions.to_json(),
    }


def check_texts(**texts: str | None) -> None:
    """Raise TenancyError, which names the text, for a text that some databases cannot store."""
    for what, text in texts.items():
        if text is None:
            continue
        name = f"The {what.replace('_', ' ')}"
        check_type(name, text, str, "text")
        if not can_be_stored(text):
            msg = f"{name} contains a NUL or a lone surrogate, which a database cannot store."
            raise TenancyError(msg, remedy="Remove it.")


def to_tenant(row: Any) -> Tenant:
    """Return a row's tenant."""
    schema, prefix = json.loads(row.placement)
    return Tenant(
        id=row.id,
        slug=row.slug,
        name=row.name,
        status=TenantStatus(row.status),
        reads=row.reads,
        placement=Placement(schema, prefix, row.owns_schema),
        adopted=row.adopted,
        created_at=row.created_at,
        changed_at=row.changed_at,
        previous=tuple(TenantStatus(status) for status in row.previous.split()),
        due_at=row.due_at,
        reason=row.reason,
        metadata=row.metadata,
        request_id=row.request_id,
        versions=Versions.from_json(row.versions),
    )
