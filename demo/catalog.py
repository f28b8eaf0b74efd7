"""What the demo's tables hold, as the database itself says: nothing here is taken from the applications."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, LargeBinary, Text, column, select, table

from demo.databases import Database


@dataclass
class Place:
    """The tables of one application that lie together."""

    name: str
    """The schema, or the table prefix where there are no schemas."""
    application: str
    """In lower case, as it stands in the names of tables."""
    tables: list[str] = field(default_factory=list)
    """The names of the tables without what they share, such as `events`."""
    last_id: int = 0
    topics: list[str] = field(default_factory=list)
    """The topic of each event, in the order of the ids."""
    states: list[bytes] = field(default_factory=list)
    """The state of each event, in the order of the ids."""
    positions: dict[str, int] = field(default_factory=dict)
    """How far the application has followed others, by their names."""


def read_places(database: Database) -> Sequence[Place]:
    """Return all places that the catalog lists, but for that of the registry, with what is in their tables."""
    number, topic, state = column("id", BigInteger), column("topic", Text), column("state", LargeBinary)
    leader, position = column("application_name", Text), column("notification_id", BigInteger)
    places: dict[tuple[str, str], Place] = {}
    for schema, name in database.tables():
        if f"{schema}{name}".startswith(database.registry):
            continue
        stem, _, kind = name.rpartition("_")  # <prefix><application>_<kind>
        prefix, separator, application = stem.rpartition("_")
        where = f"{schema}{prefix}{separator}"
        place = places.setdefault((where, application), Place(where, application))
        place.tables.append(kind)
        source = table(name, schema=schema or None)
        if kind == "events":
            events = database.query(select(number, topic, state).select_from(source).order_by(number))
            place.last_id = events[-1][0] if events else 0
            place.topics = [row[1] for row in events]
            place.states = [row[2] for row in events]
        elif kind == "tracking":
            place.positions = {row[0]: row[1] for row in database.query(select(leader, position).select_from(source))}
    return list(places.values())
