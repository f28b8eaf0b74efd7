"""What is asked of the registry and written to it. Every change is one transaction: a row, an event, a remark."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, OperationalError, PersistenceError, ProgrammingError

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tenancy.errors import RegistryMissing, RegistryUnavailable
from tenancy.registry.history import Change, History, RegistryApplication, to_change
from tenancy.registry.rows import NewTenant, Rows, to_tenant
from tenancy.tenant import Tenant, TenantStatus, Verb

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from tenancy.settings import TenancySettings

__all__ = ["FORMAT", "Change", "Registry"]

# Variables of the process that say how to reach the database, and so are for the registry too.
_OF_CONNECTIONS: Final = (
    "SQLALCHEMY_POOL_TIMEOUT",
    "SQLALCHEMY_POOL_RECYCLE",
    "SQLALCHEMY_POOL_PRE_PING",
    "SQLALCHEMY_CONNECT_TIMEOUT",
    "SQLALCHEMY_LOCK_TIMEOUT",
    "SQLALCHEMY_IDLE_IN_TRANSACTION_SESSION_TIMEOUT",
    "SQLALCHEMY_PREPARE_STATEMENTS",
    "SQLALCHEMY_SQLITE_SYNCHRONOUS",
)
FORMAT: Final = 1
"""How this version keeps the registry."""
_PAGE: Final = 500
# How often making the tables is tried when other processes make them too.
_ATTEMPTS: Final = 10


class Registry:
    """The tenants, as the control database knows them. Safe to use from many threads.

    Raises RegistryUnavailable when the database cannot be reached and RegistryMissing when it has no registry.
    """

    def __init__(self, settings: TenancySettings) -> None:
        environment = {
            "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
            "SQLALCHEMY_URL": settings.control_url.render_as_string(hide_password=False),
            "SQLALCHEMY_CONNECTION_CREATOR_TOPIC": settings.control_creator_topic or "",
            "CREATE_TABLE": "no",
        }
        environment |= {key: settings.environment[key] for key in _OF_CONNECTIONS if key in settings.environment}
        where = "SQLALCHEMY_SCHEMA" if settings.control_has_schemas else "SQLALCHEMY_TABLE_PREFIX"
        environment[where] = settings.control_schema if settings.control_has_schemas else f"{settings.control_schema}_"
        self._application = RegistryApplication(env=environment)
        self._recorder = cast("SQLAlchemyApplicationRecorder", self._application.recorder)
        self._rows = Rows(
            settings.control_schema if settings.control_has_schemas else None,
            "" if settings.control_has_schemas else f"{settings.control_schema}_",
        )

    def __str__(self) -> str:
        return f"the registry in {self._recorder.datastore.shared}"

    @property
    def rows(self) -> Rows:
        """The tables, for queries in :func:`reading` and :func:`writing`."""
        return self._rows

    @property
    def datastore(self) -> SQLAlchemyDatastore:
        """The connections of the registry."""
        return self._recorder.datastore

    def close(self) -> None:
        """Close its connections; a second time does nothing."""
        self._application.close()

    # -- making --

    def init(self, facts: Mapping[str, Any]) -> None:
        """Make the tables where they do not exist, and record facts about the fleet; safe when many processes do so.

        Raises ProgrammingError for a missing right, which says what to grant.
        """
        with self._reaching():
            for attempt in range(_ATTEMPTS):
                try:
                    self._recorder.create_table()
                    with self._recorder.transaction() as session:
                        self._rows.metadata.create_all(session.connection())
                    break
                except (IntegrityError, ProgrammingError):
                    if attempt == _ATTEMPTS - 1:
                        raise
            defaults = {"format": FORMAT, "hash_key": secrets.token_hex(32)}
            self._set(defaults, overwrite=False)
            self._set(facts, overwrite=True)

    def _set(self, facts: Mapping[str, Any], *, overwrite: bool) -> None:
        fleet = self._rows.fleet
        for key, value in facts.items():
            try:
                with self._recorder.transaction() as session:
                    known = session.execute(sa.select(fleet.c.value).where(fleet.c.key == key)).first()
                    if known is None:
                        session.execute(sa.insert(fleet).values(key=key, value=value))
                    elif overwrite and known.value != value:
                        session.execute(sa.update(fleet).where(fleet.c.key == key).values(value=value))
            except IntegrityError:
                if overwrite:
                    self._set({key: value}, overwrite=True)  # another process has just inserted it

    @cached_property
    def _hash_key(self) -> bytes:
        return bytes.fromhex(self.facts()["hash_key"])

    def facts(self) -> dict[str, Any]:
        """Return what :func:`init` has recorded, by key."""
        with self.reading() as session:
            return {row.key: row.value for row in session.execute(sa.select(self._rows.fleet))}

    # -- reading --

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session for queries of the registry."""
        with self._reaching(), self._recorder.transaction(commit=False) as session:
            yield session

    def find(self, slug: str) -> Tenant | None:
        """Return the tenant with a slug, which is normal, or None."""
        return self._one(self._rows.tenants.c.slug == slug)

    def get(self, tenant_id: UUID) -> Tenant | None:
        """Return the tenant with an id, or None."""
        return self._one(self._rows.tenants.c.id == tenant_id)

    def find_request(self, request_id: str) -> Tenant | None:
        """Return the tenant that a request has made, or None."""
        return self._one(self._rows.tenants.c.request_id == request_id)

    def find_many(self, slugs: Sequence[str]) -> dict[str, Tenant]:
        """Return those tenants that exist, by slug."""
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
        """Return those tenants that exist, by id."""
        found: dict[UUID, Tenant] = {}
        with self.reading() as session:
            for start in range(0, len(ids), _PAGE):
                some = self._rows.tenants.c.id.in_(ids[start : start + _PAGE])
                found |= {row.id: to_tenant(row) for row in session.execute(sa.select(self._rows.tenants).where(some))}
        return found

    def list(self, status: TenantStatus | None = None) -> Sequence[Tenant]:
        """Return all tenants, or those with a status, in the order of their slugs."""
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

    def history(self, tenant_id: UUID) -> Sequence[Change]:
        """Return what happened to a tenant, also to one that was purged, the oldest first."""
        with self._reaching():
            events = list(self._application.events.get(tenant_id))
        with self.reading() as session:
            remarks = self._rows.remarks
            rows = session.execute(sa.select(remarks).where(remarks.c.tenant_id == tenant_id))
            texts = {row.version: row.text for row in rows}
        return [to_change(each, texts) for each in events]

    def tombstone(self, slug: str) -> Sequence[tuple[UUID, datetime]]:
        """Return (id, time of the purge) of the purged tenants that had a slug."""
        stones = self._rows.tombstones
        query = sa.select(stones.c.id, stones.c.purged_at).where(stones.c.slug_hash == self.hash(slug))
        with self.reading() as session:
            return [(row.id, row.purged_at) for row in session.execute(query)]

    def hash(self, slug: str) -> str:
        """Return what a tombstone keeps of a slug: nobody without the key in the registry can tell which it was."""
        return blake2b(slug.encode(), key=self._hash_key[:64], digest_size=16).hexdigest()

    # -- following --

    def position(self) -> int:
        """Return the number of the last change of all."""
        with self._reaching():
            return self._recorder.max_notification_id() or 0

    def changed_since(self, position: int) -> tuple[int, set[UUID]]:
        """Return the number of the last change after ``position``, and the ids of the tenants that were changed.

        No change is ever missed: they become visible in the order of their numbers.
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

    # -- writing --

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield a session in a transaction that commits at the end of the block."""
        with self._reaching(), self._recorder.transaction() as session:
            yield session

    def add(self, new: Sequence[NewTenant], actor: str | None) -> Sequence[Tenant]:
        """Register tenants, all or none, with the status ``provisioning``; raises IntegrityError when a slug, a place
        or a request id is taken.
        """
        now = datetime.now(UTC)
        with self._reaching(), self._recorder.transaction() as session:
            session.execute(sa.insert(self._rows.tenants), [self._rows.insert(each, now) for each in new])
            # The events come last: they are written under a lock of all changes.
            verbs = [Verb.ADOPT if each.adopted else Verb.CREATE for each in new]
            self._application.save(
                *[History.begin(each.id, verb, actor) for each, verb in zip(new, verbs, strict=True)]
            )
        return [to_tenant(SimpleNamespace(**self._rows.insert(each, now))) for each in new]

    @contextmanager
    def locked(self, condition: str | UUID | Sequence[UUID]) -> Iterator[tuple[Session, Sequence[Tenant]]]:
        """Yield a session, and the tenants with a slug, an id or some ids as they are, in a transaction that no other
        process changes them in; it commits at the end of the block.
        """
        tenants = self._rows.tenants
        if isinstance(condition, str):
            where = tenants.c.slug == condition
        else:
            where = tenants.c.id.in_([condition] if isinstance(condition, UUID) else list(condition))
        with self._reaching(), self._recorder.transaction() as session:
            # In the order of the ids, so that two who lock some of the same wait for one another and never in a ring.
            rows = session.execute(sa.select(tenants).where(where).order_by(tenants.c.id).with_for_update()).all()
            yield session, [to_tenant(row) for row in rows]

    def change(
        self,
        session: Session,
        tenants: Sequence[Tenant],
        verb: Verb,
        actor: str | None,
        *,
        remark: str | None = None,
        **columns: Any,
    ) -> Sequence[Tenant]:
        """Write to the rows of locked tenants, and record it; returns them as they are then.

        ``columns`` may have the fields of a Tenant. With a change of the status goes the time of it.
        """
        if "status" in columns:
            columns.setdefault("changed_at", datetime.now(UTC))
        values = dict(columns)
        if "status" in values:
            values["status"] = str(values["status"])
        if "previous" in values:
            values["previous"] = " ".join(values["previous"])
        table = self._rows.tenants
        if values:
            ids = [tenant.id for tenant in tenants]
            session.execute(sa.update(table).where(table.c.id.in_(ids)).values(values))
        histories = []
        for tenant in tenants:
            history: History = self._application.repository.get(tenant.id)
            history.change(str(verb), str(columns.get("status", tenant.status)), actor)
            histories.append(history)
        if remark is not None:
            rows = [{"tenant_id": each.id, "version": each.version, "text": remark} for each in histories]
            session.execute(sa.insert(self._rows.remarks), rows)
        self._application.save(*histories)
        return [replace(tenant, **columns) for tenant in tenants]

    def bury(self, session: Session, tenant: Tenant, actor: str | None) -> datetime:
        """Erase what is known of a locked tenant, but for its id, times and a hash of its slug; return when."""
        now = datetime.now(UTC)
        values = {
            "id": tenant.id,
            "slug_hash": self.hash(tenant.slug),
            "created_at": tenant.created_at,
            "purged_at": now,
        }
        session.execute(sa.insert(self._rows.tombstones).values(values))
        session.execute(sa.delete(self._rows.remarks).where(self._rows.remarks.c.tenant_id == tenant.id))
        session.execute(sa.delete(self._rows.failures).where(self._rows.failures.c.tenant_id == tenant.id))
        session.execute(sa.delete(self._rows.tenants).where(self._rows.tenants.c.id == tenant.id))
        history: History = self._application.repository.get(tenant.id)
        history.end(actor)
        self._application.save(history)
        return now

    def residue(self, tenant_id: UUID) -> int:
        """Return how many rows there still are that could name a tenant."""
        with self.reading() as session:
            tenants, remarks, failures = self._rows.tenants, self._rows.remarks, self._rows.failures
            count = sa.select(sa.func.count())
            return sum(
                session.scalar(count.select_from(table).where(condition)) or 0
                for table, condition in (
                    (tenants, tenants.c.id == tenant_id),
                    (remarks, remarks.c.tenant_id == tenant_id),
                    (failures, failures.c.tenant_id == tenant_id),
                )
            )

    # -- errors --

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            msg = f"The registry does not answer: {error}."
            remedy = "Check the server, and TENANCY_CONTROL_URL or SQLALCHEMY_URL."
            raise RegistryUnavailable(msg, remedy=remedy) from error
        except ProgrammingError as error:
            if self._is_there():
                raise
            msg = f"There is no registry in {self._recorder.datastore.shared}."
            raise RegistryMissing(msg, remedy="Make it: tenancy init") from error

    def _is_there(self) -> bool:
        try:
            with self._recorder.datastore.get_connection() as connection:
                return sa.inspect(connection).has_table(self._rows.tenants.name, schema=self._rows.tenants.schema)
        except (PersistenceError, sa.exc.SQLAlchemyError):
            return False
