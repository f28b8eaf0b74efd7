"""The events of the registry: what was done to which tenant, when, and by whose id. No names, no reasons."""

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
from tenancy.model.tenant import TenantStatus, Verb

if TYPE_CHECKING:
    from eventsourcing.utils import EnvType

__all__ = ["FLEET_ID", "Change", "FleetHistory", "History", "RegistryApplication", "to_change"]

FLEET_ID: Final = uuid5(NAMESPACE_URL, "/fleet")
"""What changes of the fleet itself are recorded under, as those of a tenant under its id."""


class History(Aggregate):
    """What happened to one tenant, whose id it has."""

    class Began(Aggregate.Created):
        """The tenant was registered."""

        verb: str
        status: str
        actor: str | None

    class Changed(Aggregate.Event):
        """Something was done to the tenant."""

        verb: str
        status: str
        actor: str | None

    class Ended(Aggregate.Event):
        """Nothing is left of the tenant's data."""

        actor: str | None

    @event(Began)
    def __init__(self, verb: str, status: str, actor: str | None) -> None:
        self.status = status

    @staticmethod
    def begin(tenant_id: UUID, verb: Verb, actor: str | None) -> History:
        """Return the history of a new tenant."""
        return History._create(
            History.Began, id=tenant_id, verb=str(verb), status=str(TenantStatus.PROVISIONING), actor=actor
        )

    @event(Changed)
    def change(self, verb: str, status: str, actor: str | None) -> None:
        """Record what was done."""
        self.status = status

    @event(Ended)
    def end(self, actor: str | None) -> None:
        """Record that the tenant is gone."""
        self.status = "purged"


class FleetHistory(Aggregate):
    """What happened to the fleet itself."""

    class EncodingRecorded(Aggregate.Event):
        """The events of an application are stored so from then on."""

        application: str
        cipher: str
        compressor: str

    @event("Began")
    def __init__(self) -> None:
        self.encodings: dict[str, tuple[str, str]] = {}

    @staticmethod
    def create_id() -> UUID:
        """Return the id of the only one."""
        return FLEET_ID

    @event(EncodingRecorded)
    def record_encoding(self, application: str, cipher: str, compressor: str) -> None:
        """Record how the events of an application are stored."""
        self.encodings[application] = (cipher, compressor)


class Change(NamedTuple):
    """Something that was done to a tenant."""

    version: int
    verb: str
    status: str
    actor: str | None
    at: datetime
    remark: str | None


def to_change(event: Any, texts: Mapping[int, str]) -> Change:
    """Return what an event says; ``texts`` are the remarks by version."""
    is_end = isinstance(event, History.Ended)
    version = event.originator_version
    return Change(
        version=version,
        verb="purge" if is_end else event.verb,
        status="purged" if is_end else event.status,
        actor=event.actor,
        at=event.timestamp,
        remark=texts.get(version),
    )


class RegistryDatastore(SQLAlchemyDatastore):
    """A datastore with a small pool of its own: the registry answers also when the tenants use up all of theirs."""

    sequence_remedy = "Repair it: tenancy doctor --repair"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, pool_size=1, max_overflow=3)


class RegistryFactory(persistence.SQLAlchemyFactory):
    """Constructs the recorder of the registry."""

    datastore_class = RegistryDatastore


class RegistryApplication(Application[UUID]):
    """The events of the registry, on our own persistence module."""

    # No application of a user's is called so: two of one process may not have the same name.
    name = "tenancy_registry"

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        # Nothing of the process's environment: what it says of ciphers, snapshots, schemas and persistence modules is
        # meant for the tenants' applications.
        return Environment(name, env)

    def construct_factory(self, env: Environment) -> InfrastructureFactory[Any]:
        return RegistryFactory(env)
