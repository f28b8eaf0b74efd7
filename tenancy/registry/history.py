"""The registry's events: each change of a tenant with its time and the actor's id. No names, no reasons."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy import factory as persistence
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from tenancy.model.tenant import Action, TenantStatus

if TYPE_CHECKING:
    from eventsourcing.utils import EnvType

__all__ = ["FLEET_ID", "Change", "FleetHistory", "History", "RegistryApplication", "to_change"]

FLEET_ID: Final = uuid5(NAMESPACE_URL, "/fleet")
"""The id of the fleet's own history."""


class History(Aggregate):
    """The changes of one tenant, under its id."""

    class TenantRegistered(Aggregate.Created):
        """The tenant was registered."""

        action: str
        status: str
        actor: str | None

    class TenantChanged(Aggregate.Event):
        """The tenant's status, slug or name was changed, or one of its followers skipped a notification."""

        action: str
        status: str
        actor: str | None

    class TenantPurged(Aggregate.Event):
        """The tenant's data was removed."""

        actor: str | None

    @event(TenantRegistered)
    def __init__(self, action: str, status: str, actor: str | None) -> None:
        self.status = status

    @staticmethod
    def register(tenant_id: UUID, action: Action, actor: str | None) -> History:
        """Return the history of a new tenant."""
        return History._create(
            History.TenantRegistered,
            id=tenant_id,
            action=str(action),
            status=str(TenantStatus.PROVISIONING),
            actor=actor,
        )

    @event(TenantChanged)
    def change(self, action: str, status: str, actor: str | None) -> None:
        """Record a change."""
        self.status = status

    @event(TenantPurged)
    def purge(self, actor: str | None) -> None:
        """Record that the tenant was purged."""
        self.status = "purged"


class FleetHistory(Aggregate):
    """The changes of the fleet itself."""

    class EncodingRecorded(Aggregate.Event):
        """From now on, an application's events are stored with this cipher and compressor."""

        application: str
        cipher: str
        compressor: str

    @event("FleetRegistered")
    def __init__(self) -> None:
        self.encodings: dict[str, tuple[str, str]] = {}

    @staticmethod
    def create_id() -> UUID:
        """Return the id of the only fleet history."""
        return FLEET_ID

    @event(EncodingRecorded)
    def record_encoding(self, application: str, cipher: str, compressor: str) -> None:
        """Record how an application's events are stored."""
        self.encodings[application] = (cipher, compressor)


class Change(NamedTuple):
    """One change of a tenant."""

    version: int
    action: str
    status: str
    actor: str | None
    at: datetime
    remark: str | None


def to_change(event: Any, texts: Mapping[int, str]) -> Change:
    """Return the change that an event records; ``texts`` are the remarks by version."""
    is_purge = isinstance(event, History.TenantPurged)
    version = event.originator_version
    return Change(
        version=version,
        action="purge" if is_purge else event.action,
        status="purged" if is_purge else event.status,
        actor=event.actor,
        at=event.timestamp,
        remark=texts.get(version),
    )


class RegistryDatastore(SQLAlchemyDatastore):
    """A datastore with a small pool of its own: the registry answers even when tenants have exhausted their pool."""

    sequence_remedy = "Repair it: tenancy doctor --repair"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, pool_size=1, max_overflow=3)


class RegistryFactory(persistence.SQLAlchemyFactory):
    """Constructs the recorder of the registry."""

    datastore_class = RegistryDatastore


class RegistryApplication(Application[UUID]):
    """The events of the registry, on our own persistence module."""

    # A name that no user's application has: names are unique in a process.
    name = "tenancy_registry"

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        # Ignore the process's environment: its ciphers, snapshots, schemas and persistence modules are meant for the
        # tenants' applications.
        return Environment(name, env)

    def construct_factory(self, env: Environment) -> InfrastructureFactory[Any]:
        return RegistryFactory(env)
