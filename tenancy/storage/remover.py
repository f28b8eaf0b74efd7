"""Remove a tenant's tables and schemas from a shard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import OperationalError

from eventsourcing_sqlalchemy.errors import describe
from eventsourcing_sqlalchemy.naming import quote
from tenancy.errors import TenancyError
from tenancy.model.tenant import Tenant

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.dialects.protocols import RelationKind
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.storage.inventory import ShardInventory, TenantInventory
    from tenancy.storage.shard import Shard

__all__ = ["Remover", "is_in_use"]

# Each dropped table takes several locks from a table that all clients of the server share.
_TABLES_PER_DROP: Final = 20
# How long to wait for a tenant's last transactions before its tables are dropped. Seconds.
_TIMEOUT: Final = 60.0
_PAUSE: Final = 0.1
# lock_not_available, deadlock_detected; SQLite has no SQLSTATE, and names its errors.
_RETRYABLE: Final = ("55P03", "40P01", "SQLITE_BUSY", "SQLITE_LOCKED")


class Remover:
    """Removes tenants from one shard. Safe to use from many threads."""

    def __init__(self, shard: Shard, inventory: ShardInventory) -> None:
        self._shard = shard
        self._inventory = inventory

    def drop(self, tenant: Tenant, application_specs: Sequence[ApplicationSpec]) -> TenantInventory:
        """Drop a tenant's tables and schemas in batches, and return what they were. After a crash, a second call drops
        the rest.

        Raises TenancyError when the tenant's transactions do not end in time; the call can be repeated.
        """
        there = self._inventory.of_tenant(tenant, application_specs)
        at_once, cascade = (_TABLES_PER_DROP, " CASCADE") if self._shard.datastore.dialect.has_schemas else (1, "")
        # Tables last: one of them may list the rest.
        kinds: tuple[RelationKind, ...] = ("view", "materialized view", "foreign table", "sequence", "table")
        for kind in kinds:
            names = there.of(kind)
            for start in range(0, len(names), at_once):
                batch = ", ".join(map(str, names[start : start + at_once]))
                self._drop(tenant, f"DROP {kind.upper()} IF EXISTS {batch}{cascade}")
        for schema in there.schemas:
            self._drop(tenant, f"DROP SCHEMA IF EXISTS {quote(schema)}{cascade}")
        return there

    def _drop(self, tenant: Tenant, statement: str) -> None:
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                with self._shard.datastore.transaction() as session:
                    self._shard.datastore.run_in_session(
                        session, lambda executor: executor.fetch(statement), savepoint=False
                    )
            except OperationalError as error:
                if not is_in_use(error):
                    raise
                if time.monotonic() > deadline:
                    msg = f"The tables of tenant {tenant.slug!r} are in use: {error}."
                    remedy = f"End the transactions that use them, then run: tenancy purge {tenant.slug}"
                    raise TenancyError(msg, remedy=remedy, tenant=tenant.slug) from error
                time.sleep(_PAUSE)
            else:
                return


def is_in_use(error: OperationalError) -> bool:
    """Return whether another transaction held the table."""
    code = describe(error).partition(" ")[2]
    # Our own wait for SQLite's writer has no code.
    return code in _RETRYABLE if code else "locked" in str(error)
