"""Read the contents of the demo's tables from the database, not from the applications."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, LargeBinary, Text, column, select, table

from demo.databases import Database


@dataclass
class ApplicationTables:
    """One application's tables in one schema, or with one table prefix."""

    name: str
    """The schema, or the table prefix where there are no schemas."""
    application: str
    """In lower case, as in table names."""
    tables: list[str] = field(default_factory=list)
    """The table names without their common prefix, such as `events`."""
    last_id: int = 0
    topics: list[str] = field(default_factory=list)
    """The topic of each event, in the order of the ids."""
    states: list[bytes] = field(default_factory=list)
    """The state of each event, in the order of the ids."""
    positions: dict[str, int] = field(default_factory=dict)
    """The recorded position in each application that this one follows, by name."""


def read_tables(database: Database) -> Sequence[ApplicationTables]:
    """Return all tables that the catalog lists, by application, except the registry's, with their contents."""
    number, topic, state = column("id", BigInteger), column("topic", Text), column("state", LargeBinary)
    leader, position = column("application_name", Text), column("notification_id", BigInteger)
    found: dict[tuple[str, str], ApplicationTables] = {}
    for schema, name in database.tables():
        if f"{schema}{name}".startswith(database.registry):
            continue
        stem, _, kind = name.rpartition("_")  # <prefix><application>_<kind>
        prefix, separator, application = stem.rpartition("_")
        where = f"{schema}{prefix}{separator}"
        entry = found.setdefault((where, application), ApplicationTables(where, application))
        entry.tables.append(kind)
        source = table(name, schema=schema or None)
        if kind == "events":
            events = database.query(select(number, topic, state).select_from(source).order_by(number))
            entry.last_id = events[-1][0] if events else 0
            entry.topics = [row[1] for row in events]
            entry.states = [row[2] for row in events]
        elif kind == "tracking":
            entry.positions = {row[0]: row[1] for row in database.query(select(leader, position).select_from(source))}
    return list(found.values())
