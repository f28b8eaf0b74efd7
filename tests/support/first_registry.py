"""A registry of format 1, as the version that created it left it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid5

import sqlalchemy as sa

from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.tables import TableSpec
from tenancy.registry.history import FLEET_ID

THEN = datetime(2026, 1, 31, 12, tzinfo=UTC)


def _tables(schema: str | None, prefix: str) -> sa.MetaData:
    moment = sa.DateTime(timezone=True)
    metadata = sa.MetaData(schema=schema)
    columns = {
        "tenants": (
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
            sa.Column("created_at", moment, nullable=False),
            sa.Column("changed_at", moment, nullable=False),
            sa.Column("due_at", moment),
        ),
        "remarks": (
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("text", sa.Text, nullable=False),
        ),
        "tombstones": (
            sa.Column("id", sa.Uuid, primary_key=True),
            sa.Column("slug_hash", sa.Text, nullable=False),
            sa.Column("created_at", moment, nullable=False),
            sa.Column("purged_at", moment, nullable=False),
        ),
        "fleet_settings": (
            sa.Column("key", sa.Text, primary_key=True),
            sa.Column("value", sa.JSON, nullable=False),
        ),
        "encodings": (
            sa.Column("application", sa.Text, primary_key=True),
            sa.Column("cipher", sa.Text, nullable=False),
            sa.Column("compressor", sa.Text, nullable=False),
        ),
        "runner_failures": (
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            sa.Column("follower", sa.Text, primary_key=True),
            sa.Column("leader", sa.Text, nullable=False),
            sa.Column("notification_id", sa.BigInteger),
            sa.Column("error", sa.Text, nullable=False),
            sa.Column("frames", sa.JSON, nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("first_at", moment, nullable=False),
            sa.Column("last_at", moment, nullable=False),
            sa.Column("is_quarantined", sa.Boolean, nullable=False),
        ),
        "runner_processes": (
            sa.Column("owner", sa.Text, primary_key=True),
            sa.Column("expires", sa.Double, nullable=False),
            sa.Column("failing", sa.Text),
        ),
        "runner_leases": (
            sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("owner", sa.Text),
            sa.Column("expires", sa.Double, nullable=False),
        ),
    }
    for name, definitions in columns.items():
        sa.Table(f"{prefix}{name}", metadata, *definitions)
    return metadata


def create_first_registry(url: str, adopted: Sequence[str] = ()) -> None:
    """Create a registry of format 1 with the tenants acme and globex; ``adopted`` are the slugs of adopted ones."""
    engine = sa.create_engine(url)
    is_sqlite = engine.dialect.name == "sqlite"
    schema, prefix = (None, "tenancy_") if is_sqlite else ("tenancy", "")
    metadata = _tables(schema, prefix)
    with engine.begin() as connection:
        if schema is not None:
            connection.execute(sa.schema.CreateSchema(schema))
        metadata.create_all(connection)
        events = TableSpec("events", TableName(schema, f"{prefix}tenancy_registry_events"))
        for statement in events.ddl(type(engine.dialect)):
            connection.exec_driver_sql(statement)
        settings = {"format": 1, "hash_key": "00" * 32}
        table = metadata.tables[f"tenancy.{prefix}fleet_settings" if schema else f"{prefix}fleet_settings"]
        connection.execute(sa.insert(table), [{"key": key, "value": value} for key, value in settings.items()])
        tenants = metadata.tables[f"tenancy.{prefix}tenants" if schema else f"{prefix}tenants"]
        for slug in ("acme", "globex"):
            tenant_id: UUID = uuid5(FLEET_ID, slug)
            connection.execute(
                sa.insert(tenants).values(
                    id=tenant_id, slug=slug, name=slug, status="active", previous="", reads=False,
                    placement=json.dumps([None, f"{slug}_"]), owns_schema=False, adopted=slug in adopted, metadata={},
                    created_at=THEN, changed_at=THEN,
                )
            )  # fmt: skip
            connection.execute(
                sa.insert(events.table()).values(
                    originator_id=tenant_id,
                    originator_version=1,
                    topic="tenancy.registry.history:History.TenantRegistered",
                    state=json.dumps(
                        {
                            "timestamp": {"_type_": "datetime_iso", "_data_": THEN.isoformat()},
                            "originator_topic": "tenancy.registry.history:History",
                            "action": "create",
                            "status": "active",
                            "actor": None,
                        }
                    ).encode(),
                )
            )
    engine.dispose()
