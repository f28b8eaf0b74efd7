"""Queries and changes of the registry. Each change writes a row, an event and a remark in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from uuid import UUID

import sqlalchemy as sa

from tenancy.model.metadata import plain_metadata
from tenancy.model.quotas import check_quotas
from tenancy.model.tenant import Action, Tenant, TenantStatus, check_actor
from tenancy.model.weights import check_weight
from tenancy.registry.database import RegistryDatabase
from tenancy.registry.history import FLEET_ID, Change, History, to_change
from tenancy.registry.tables import check_texts, to_row, to_tenant

if TYPE_CHECKING:
    from eventsourcing.persistence import Notification
    from sqlalchemy.orm import Session

    from tenancy.model.versions import Versions

__all__ = ["Change", "RecordedChange", "Registry"]

_PAGE: Final = 500


class RecordedChange(NamedTuple):
    """A change with its position in the registry's log, in which all tenants' changes are in order."""

    position: int
    tenant_id: UUID
    change: Change | None
    """None for a change of the fleet itself."""


class Registry(RegistryDatabase):
    """The tenants in the control database. Safe to use from many threads.

    Raises RegistryUnavailable when the database cannot be reached and RegistryMissing when it has no registry.
    """

    # -- reading --

    def find(self, slug: str) -> Tenant | None:
        """Return the tenant with a normalized slug, or None."""
        return self._one(self._rows.tenants.c.slug == slug)

    def get(self, tenant_id: UUID) -> Tenant | None:
        """Return the tenant with an id, or None."""
        return self._one(self._rows.tenants.c.id == tenant_id)

    def find_request(self, request_id: str) -> Tenant | None:
        """Return the tenant that a request has created, or None."""
        return self._one(self._rows.tenants.c.request_id == request_id)

    def find_many(self, slugs: Sequence[str]) -> dict[str, Tenant]:
        """Return the existing tenants by slug."""
        found: dict[str, Tenant] = {}
        with self.reading() as session:
            for start in range(0, len(slugs), _PAGE):
                some = self._rows.tenants.c.slug.in_(slugs[start : start + _PAGE])
                found |= {
                    row.slug: to_tenant(row) for row in session.execute(sa.select(self._rows.tenants).where(some))
                }
        return found

    def _one(self, condition: sa.ColumnElement[bool]) -> Tenant | None:
        with self.reading() as session:
            row = session.execute(sa.select(self._rows.tenants).where(condition)).first()
            return None if row is None else to_tenant(row)

    def get_many(self, ids: Sequence[UUID]) -> dict[UUID, Tenant]:
        """Return the existing tenants by id."""
        found: dict[UUID, Tenant] = {}
        with self.reading() as session:
            for start in range(0, len(ids), _PAGE):
                some = self._rows.tenants.c.id.in_(ids[start : start + _PAGE])
                found |= {row.id: to_tenant(row) for row in session.execute(sa.select(self._rows.tenants).where(some))}
        return found

    def list(self, status: TenantStatus | None = None) -> Sequence[Tenant]:
        """Return all tenants, or those with a status, in slug order."""
        tenants = self._rows.tenants
        query = sa.select(tenants).order_by(tenants.c.slug)
        if status is not None:
            query = query.where(tenants.c.status == str(status))
        with self.reading() as session:
            return [to_tenant(row) for row in session.execute(query)]

    def slugs(self) -> Sequence[str]:
        """Return the slugs of all tenants."""
        with self.reading() as session:
            return session.scalars(sa.select(self._rows.tenants.c.slug)).all()

    def slugs_from(self, beginning: str, limit: int) -> Sequence[str]:
        """Return the first slugs that begin with a text, in order."""
        slug = self._rows.tenants.c.slug
        query = sa.select(slug).where(slug.startswith(beginning, autoescape=True)).order_by(slug).limit(limit)
        with self.reading() as session:
            return session.scalars(query).all()

    def history(self, tenant_id: UUID) -> Sequence[Change]:
        """Return a tenant's changes, oldest first, also of a purged tenant."""
        if tenant_id == FLEET_ID:
            return []
        with self._reaching():
            events = list(self._application.events.get(tenant_id))
        with self.reading() as session:
            remarks = self._rows.remarks
            rows = session.execute(sa.select(remarks).where(remarks.c.tenant_id == tenant_id))
            texts = {row.version: row.text for row in rows}
        return [to_change(each, texts) for each in events]

    def hash(self, slug: str) -> str:
        """Return a keyed hash of a slug, for tombstones: without the registry's key the slug cannot be found out."""
        return blake2b(slug.encode(), key=self._hash_key[:64], digest_size=16).hexdigest()

    # -- changes since --

    def position(self) -> int:
        """Return the position of the last change."""
        with self._reaching():
            return self._recorder.max_notification_id() or 0

    def changed_since(self, position: int) -> tuple[int, set[UUID]]:
        """Return the position of the last change, and the ids of the tenants changed after ``position``.

        No change is missed: changes become visible in the order of their positions.
        """
        changed: set[UUID] = set()
        while True:
            with self._reaching():
                found = self._recorder.select_notifications(position, _PAGE, inclusive_of_start=False)
            for notification in found:
                changed.add(cast("UUID", notification.originator_id))
                position = notification.id
            if len(found) < _PAGE:
                return position, changed

    def changes_after(self, position: int) -> Sequence[RecordedChange]:
        """Return the next changes of tenants after a position, in order and without their remarks.

        The last one's position may be that of a change of the fleet, which has no tenant.
        """
        with self._reaching():
            found = self._recorder.select_notifications(position, _PAGE, inclusive_of_start=False)
            return [RecordedChange(each.id, cast("UUID", each.originator_id), self._change_of(each)) for each in found]

    def _change_of(self, notification: Notification) -> Change | None:
        if notification.originator_id == FLEET_ID:
            return None
        return to_change(self._application.mapper.to_domain_event(notification), {})

    def remark(self, tenant_id: UUID, version: int) -> str | None:
        """Return the remark of a change, or None."""
        remarks = self._rows.remarks
        mine = sa.and_(remarks.c.tenant_id == tenant_id, remarks.c.version == version)
        with self.reading() as session:
            return session.scalar(sa.select(remarks.c.text).where(mine))

    # -- writing --

    def record_versions(self, session: Session, tenants: Sequence[Tenant], versions: Versions) -> Sequence[Tenant]:
        """Record the versions of locked tenants that are being created; the history has only their activation."""
        table = self._rows.tenants
        with self._reaching():
            mine = table.c.id.in_([tenant.id for tenant in tenants])
            session.execute(sa.update(table).where(mine).values(versions=versions.to_json()))
        return [replace(tenant, versions=versions) for tenant in tenants]

    def add(self, tenants: Sequence[Tenant], actor: str | None) -> Sequence[Tenant]:
        """Register new tenants, all or none; raises IntegrityError when a slug, placement or request id is taken."""
        check_actor(actor)
        for each in tenants:
            check_texts(slug=each.slug, name=each.name, request_id=each.request_id)
        tenants = [replace(each, metadata=plain_metadata(each.metadata)) for each in tenants]
        for each in tenants:
            check_weight(each.metadata)
            check_quotas(each.metadata)
        with self.writing() as session, self._reaching():
            # Insert in slug order: two processes that add some of the same tenants cannot deadlock.
            rows = sorted(map(to_row, tenants), key=lambda row: str(row["slug"]))
            session.execute(sa.insert(self._rows.tenants), rows)
            # Events last: writing them takes a lock that all changes need.
            self._application.save(
                *[History.register(each.id, Action.ADOPT if each.adopted else Action.CREATE, actor) for each in tenants]
            )
        return tenants

    @contextmanager
    def locked(self, keys: str | UUID | Sequence[str] | Sequence[UUID]) -> Iterator[tuple[Session, Sequence[Tenant]]]:
        """Yield a session and the existing tenants with these slugs or ids, in a transaction that locks their rows.

        It commits at the end of the block.
        """
        some = [keys] if isinstance(keys, str | UUID) else list(keys)
        tenants = self._rows.tenants
        where = (tenants.c.slug if some and isinstance(some[0], str) else tenants.c.id).in_(some)
        with self.writing() as session:
            with self._reaching():
                # Lock in id order to avoid deadlock.
                query = sa.select(tenants).where(where).order_by(tenants.c.id).with_for_update()
                rows = session.execute(query).all()
            yield session, [to_tenant(row) for row in rows]

    def change(
        self,
        session: Session,
        tenants: Sequence[Tenant],
        action: Action,
        actor: str | None,
        *,
        remark: str | None = None,
        **columns: Any,
    ) -> Sequence[Tenant]:
        """Update locked tenants, record the change, and return the changed tenants.

        ``columns`` are fields of a Tenant. A new ``status`` also sets ``changed_at``.
        """
        check_actor(actor)
        check_texts(slug=columns.get("slug"), name=columns.get("name"), reason=remark)
        if "status" in columns:
            columns.setdefault("changed_at", datetime.now(UTC))
        values = dict(columns)
        if "status" in values:
            values["status"] = str(values["status"])
        if "previous" in values:
            values["previous"] = " ".join(values["previous"])
        if "versions" in values:
            values["versions"] = values["versions"].to_json()
        table = self._rows.tenants
        with self._reaching():
            if values:
                ids = [tenant.id for tenant in tenants]
                session.execute(sa.update(table).where(table.c.id.in_(ids)).values(values))
            histories = []
            for tenant in tenants:
                history: History = self._application.repository.get(tenant.id)
                history.change(str(action), str(columns.get("status", tenant.status)), actor)
                histories.append(history)
            if remark is not None:
                rows = [{"tenant_id": each.id, "version": each.version, "text": remark} for each in histories]
                session.execute(sa.insert(self._rows.remarks), rows)
            self._application.save(*histories)
        return [replace(tenant, **columns) for tenant in tenants]

    def erase(self, session: Session, tenant: Tenant, actor: str | None) -> datetime:
        """Erase a locked tenant except for its id, times and slug hash; return the time."""
        now = datetime.now(UTC)
        values = {
            "id": tenant.id,
            "slug_hash": self.hash(tenant.slug),
            "created_at": tenant.created_at,
            "purged_at": now,
        }
        with self._reaching():
            session.execute(sa.insert(self._rows.tombstones).values(values))
            for table in self._rows.of_tenants:
                session.execute(sa.delete(table).where(table.c.tenant_id == tenant.id))
            # The items themselves stay: without them, jobs would not end as they were planned.
            items = self._rows.job_items
            erased = sa.update(items).where(items.c.tenant_id == tenant.id).values(summary=None, progress={})
            session.execute(erased)
            session.execute(sa.delete(self._rows.tenants).where(self._rows.tenants.c.id == tenant.id))
            history: History = self._application.repository.get(tenant.id)
            history.purge(actor)
            self._application.save(history)
        return now

    def remaining_rows(self, tenant_id: UUID) -> int:
        """Return the number of remaining rows that could name a tenant."""
        with self.reading() as session:
            tenants, items = self._rows.tenants, self._rows.job_items
            count = sa.select(sa.func.count())
            return sum(
                session.scalar(count.select_from(table).where(condition)) or 0
                for table, condition in (
                    (tenants, tenants.c.id == tenant_id),
                    *((table, table.c.tenant_id == tenant_id) for table in self._rows.of_tenants),
                    (items, sa.and_(items.c.tenant_id == tenant_id, items.c.summary.is_not(None))),
                )
            )
