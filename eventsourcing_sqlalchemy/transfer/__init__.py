"""Copy applications' tables into a file, out of it, and from one database to another, and prove that they are equal."""

from eventsourcing_sqlalchemy.transfer.archive import Archive, append_archive, write_archive
from eventsourcing_sqlalchemy.transfer.copying import Contents, copy_tables
from eventsourcing_sqlalchemy.transfer.tables import ApplicationTables
from eventsourcing_sqlalchemy.transfer.verifying import Difference, Verification, compare, verify_archive

__all__ = [
    "ApplicationTables",
    "Archive",
    "Contents",
    "Difference",
    "Verification",
    "append_archive",
    "compare",
    "copy_tables",
    "verify_archive",
    "write_archive",
]
