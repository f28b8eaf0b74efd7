"""Open the database of tenants, for statements about many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventsourcing.utils import resolve_topic

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.engine_settings import EngineSettings
    from tenancy.settings import TenancySettings

__all__ = ["open_datastore"]


def open_datastore(settings: TenancySettings, engine_settings: EngineSettings | None = None) -> SQLAlchemyDatastore:
    """Return a datastore of the tenants' database, on the engine that all applications of the process share.

    Without ``engine_settings``, it accepts those of the engine.
    """
    options: dict[str, Any] = {} if engine_settings is None else {"settings": engine_settings}
    if settings.creator_topic is not None:
        options["creator"] = resolve_topic(settings.creator_topic)
    return SQLAlchemyDatastore(url=settings.url, **options)
