"""The tables of an application or projection, and the applications it follows, before it is constructed.

They follow from its class and the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from eventsourcing.persistence import TrackingRecorder
from eventsourcing.projection import EventSourcedProjection, Projection
from eventsourcing.utils import Environment, get_topic, strtobool

from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.naming import TableName, is_extended
from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from eventsourcing_sqlalchemy.settings import Settings
from eventsourcing_sqlalchemy.tables import TableKind, TableSpec
from tenancy.errors import TenancyError
from tenancy.model.encodings import Encoding
from tenancy.model.placement import Placement

if TYPE_CHECKING:
    from eventsourcing.application import Application

    from eventsourcing_sqlalchemy.engine_settings import OriginatorIDType

__all__ = ["ApplicationSpec", "application_spec_of", "by_name", "encodings_of", "projection_spec_of"]

_TOPICS: Final = (
    "AGGREGATE_RECORDER_TOPIC",
    "APPLICATION_RECORDER_TOPIC",
    "PROCESS_RECORDER_TOPIC",
    "TRACKING_RECORDER_TOPIC",
)
_HOOKS: Final = ("construct_env", "construct_factory", "construct_recorder", "construct_snapshot_store")


@dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """The tables of one application, the same for every tenant."""

    application: str
    """The application's name."""
    topic: str
    """The topic of its class."""
    tables: tuple[TableKind, ...]
    originator_id_type: OriginatorIDType
    creates_extra_tables: bool
    """Whether it has recorders or constructors of its own, which may create more tables when it is constructed."""
    follows: tuple[str, ...] = ()
    """The names of the applications that it follows."""
    view: str = ""
    """The topic of its view class, for a projection."""
    encoding: Encoding | None = field(default=None, compare=False)
    """How this process stores its events; None for a projection, and if its class is not loaded."""

    def specs(self, placement: Placement, default_schema: str | None) -> list[TableSpec]:
        """Return a tenant's tables; ``default_schema`` is the schema of tables that name none."""
        return [
            TableSpec(kind, self._table(kind, placement, default_schema), self.originator_id_type)
            for kind in self.tables
        ]

    def _table(self, kind: TableKind, placement: Placement, default_schema: str | None) -> TableName:
        schema = placement.schema_of(self.application) or default_schema
        return TableName(schema, f"{placement.prefix_of(self.application)}{self.application.lower()}_{kind}")

    def owns(self, placement: Placement, default_schema: str | None, name: TableName, limit: int | None) -> bool:
        """Return whether a relation is the application's, judging by its name.

        It is, if it has the name of a table of any kind, or of an extra table of the recorder or view. ``limit`` is the
        most bytes of a name in the database.
        """
        for kind in get_args(TableKind):
            table = self._table(kind, placement, default_schema)
            if name == table or (name.schema == table.schema and is_extended(name.name, f"{table.name}_", limit)):
                return True
        return False

    def table_names(self) -> list[str]:
        """Return the names of its tables without a prefix, as :attr:`Versions.created` lists them."""
        return [f"{self.application.lower()}_{kind}" for kind in self.tables]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the registry stores."""
        return {
            "application": self.application,
            "topic": self.topic,
            "tables": list(self.tables),
            "originator_id_type": self.originator_id_type,
            "creates_extra_tables": self.creates_extra_tables,
            "follows": list(self.follows),
            "view": self.view,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ApplicationSpec:
        """Return the specification that :meth:`to_json` returned."""
        return cls(**{**stored, "tables": tuple(stored["tables"]), "follows": tuple(stored.get("follows", ()))})


def projection_spec_of(
    cls: type[Projection[Any]], view: type[TrackingRecorder], follows: str, environment: Mapping[str, str]
) -> ApplicationSpec:
    """Return the specification of a projection whose view reads ``environment``."""
    return ApplicationSpec(
        application=cls.name,
        topic=get_topic(cls),
        tables=("tracking",),
        originator_id_type=_originator_id_type(Environment(cls.name, {**environment})),
        creates_extra_tables=view is not SQLAlchemyTrackingRecorder,
        follows=(follows,),
        view=get_topic(view),
    )


def application_spec_of(
    cls: type[Application[Any]], environment: Mapping[str, str], follows: Sequence[str] = ()
) -> ApplicationSpec:
    """Return the specification of an application that reads ``environment``."""
    of_class = dict(cls.env)
    if cls.is_snapshotting_enabled or cls.snapshotting_intervals:
        of_class["IS_SNAPSHOTTING_ENABLED"] = "yes"
    env = Environment(cls.name, {**of_class, **environment})
    tables: list[TableKind] = ["tracking"] if issubclass(cls, EventSourcedProjection) else []
    tables += ["events", "snapshots"] if _takes_snapshots(env) else ["events"]
    return ApplicationSpec(
        application=cls.name,
        topic=get_topic(cls),
        tables=tuple(tables),
        originator_id_type=_originator_id_type(env),
        creates_extra_tables=any(_is_overridden(cls, hook) for hook in _HOOKS)
        or any(env.get(topic) for topic in _TOPICS),
        follows=tuple(follows),
        encoding=Encoding.read(env),
    )


def _takes_snapshots(env: Environment) -> bool:
    value = env.get("IS_SNAPSHOTTING_ENABLED", "no")
    try:
        return bool(strtobool(value))
    except ValueError:
        msg = f"IS_SNAPSHOTTING_ENABLED is {value!r} (application {env.name!r}). Accepted are yes and no."
        raise SettingsError(msg, variable="IS_SNAPSHOTTING_ENABLED") from None


def _originator_id_type(env: Environment) -> OriginatorIDType:
    value = (Settings.read_topic(env, "ORIGINATOR_ID_TYPE") or "uuid").lower()
    if value not in ("uuid", "text"):
        msg = f"ORIGINATOR_ID_TYPE is {value!r} (application {env.name!r}). Accepted are uuid and text."
        raise SettingsError(msg, variable="ORIGINATOR_ID_TYPE")
    return cast("OriginatorIDType", value)


def _is_overridden(cls: type[Application[Any]], hook: str) -> bool:
    module: str = getattr(cls, hook).__module__
    return module.partition(".")[0] != "eventsourcing"


def by_name(classes: Iterable[type[Application[Any]]]) -> dict[str, type[Application[Any]]]:
    """Return applications by name; raises TenancyError for two with the same name, which would share tables."""
    by_name: dict[str, type[Application[Any]]] = {}
    for cls in classes:
        other = by_name.setdefault(cls.name, cls)
        if other is not cls:
            msg = f"Two applications have the name {cls.name!r}: {get_topic(other)} and {get_topic(cls)}."
            raise TenancyError(msg, remedy="Give one of them another name: their tables would be the same.")
    return by_name


def encodings_of(application_specs: Iterable[ApplicationSpec]) -> dict[str, Encoding]:
    """Return how this process stores the events of the applications whose classes it has loaded."""
    return {each.application: each.encoding for each in application_specs if each.encoding is not None}
