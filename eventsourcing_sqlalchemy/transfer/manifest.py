"""What an archive says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Final

from eventsourcing_sqlalchemy.engine_settings import OriginatorIDType
from eventsourcing_sqlalchemy.errors import ArchiveError
from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.tables import TableKind, TableSpec
from eventsourcing_sqlalchemy.transfer.copying import Contents
from eventsourcing_sqlalchemy.transfer.tables import ApplicationTables

__all__ = ["FORMAT", "ArchivedApplication", "Manifest", "tables_of"]

FORMAT: Final = 1
"""The format of archives that this version writes."""


@dataclass(frozen=True, slots=True)
class ArchivedApplication:
    """One application in an archive."""

    name: str
    originator_id_type: OriginatorIDType
    kinds: tuple[TableKind, ...]
    contents: Contents

    @property
    def tables(self) -> ApplicationTables:
        """The application's tables in the archive."""
        return tables_of(self.name, self.kinds, self.originator_id_type)


def tables_of(name: str, kinds: tuple[TableKind, ...], originator_id_type: OriginatorIDType) -> ApplicationTables:
    """Return the tables that an application of this name has in an archive: without a schema and prefix."""
    return ApplicationTables(
        name, tuple(TableSpec(kind, TableName(None, f"{name.lower()}_{kind}"), originator_id_type) for kind in kinds)
    )


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive contains, and where it came from."""

    applications: Mapping[str, ArchivedApplication]
    """By name."""
    created_at: str
    """When the snapshot was taken: ISO 8601, in UTC."""
    source: str
    """The database and its version."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the caller of write_archive() wants to keep, as JSON."""
    versions: Mapping[str, str] = field(
        default_factory=lambda: {name: version(name) for name in ("eventsourcing", "eventsourcing-sqlalchemy")}
    )
    """The versions of the packages that wrote it."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "format": FORMAT,
            "created_at": self.created_at,
            "source": self.source,
            "versions": dict(self.versions),
            "facts": dict(self.facts),
            "applications": {
                name: {
                    "originator_id_type": each.originator_id_type,
                    "tables": list(each.kinds),
                    **each.contents.to_json(),
                }
                for name, each in self.applications.items()
            },
        }

    def serialize(self) -> tuple[str, str]:
        """Return the manifest as text, and the digest of this text."""
        text = json.dumps(self.to_json(), ensure_ascii=True, sort_keys=True)
        return text, sha256(text.encode()).hexdigest()

    @classmethod
    def parse(cls, text: str, digest: str, path: str) -> Manifest:
        """Return the manifest that was serialized; raises ArchiveError for one that has changed since."""
        if sha256(text.encode()).hexdigest() != digest:
            msg = f"The manifest of the archive {path} has changed since it was written. Use another copy of the file."
            raise ArchiveError(msg, path=path)
        stored = json.loads(text)
        return cls(
            applications={
                name: ArchivedApplication(
                    name,
                    each["originator_id_type"],
                    tuple(each["tables"]),
                    Contents(
                        each["events"],
                        each["last_id"],
                        each["digest"],
                        each["snapshots"],
                        each["snapshots_digest"],
                        each["positions"],
                    ),
                )
                for name, each in stored["applications"].items()
            },
            created_at=stored["created_at"],
            source=stored["source"],
            facts=stored["facts"],
            versions=stored["versions"],
        )
