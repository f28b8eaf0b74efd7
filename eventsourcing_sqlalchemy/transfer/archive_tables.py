"""The two tables of an archive beside those of its applications, and their statements."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy.engine import URL

from eventsourcing_sqlalchemy.naming import TableName

__all__ = [
    "BEGIN_FILE",
    "CREATE",
    "DELETE_MANIFEST",
    "INSERT_BLOCK",
    "INSERT_MANIFEST",
    "SELECT_BLOCKS",
    "SELECT_LAST_BLOCKS",
    "SELECT_MANIFEST",
    "SINGLE_FILE",
    "delete_rows",
    "url_of",
]


def url_of(path: Path, *, writable: bool) -> URL:
    """Return the URL of an archive."""
    if writable:
        return URL.create("sqlite", database=str(path))
    return URL.create("sqlite", database=f"file:{quote(str(path.resolve()))}", query={"mode": "ro", "uri": "true"})


BEGIN_FILE: Final = ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF")
"""For a new file, which is of no use until it is complete."""

SINGLE_FILE: Final = "PRAGMA journal_mode=DELETE"
"""Moves what is in the write-ahead log into the file."""

CREATE: Final = (
    "CREATE TABLE archive_manifest (format INTEGER NOT NULL, body TEXT NOT NULL, digest TEXT NOT NULL)",
    """CREATE TABLE archive_blocks (
    application TEXT NOT NULL,
    number INTEGER NOT NULL,
    count INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    fingerprints BLOB NOT NULL,
    PRIMARY KEY (application, number)
)""",
)

SELECT_MANIFEST: Final = "SELECT format, body, digest FROM archive_manifest"
DELETE_MANIFEST: Final = "DELETE FROM archive_manifest"
INSERT_MANIFEST: Final = "INSERT INTO archive_manifest (format, body, digest) VALUES (?, ?, ?)"

SELECT_BLOCKS: Final = (
    "SELECT number, count, last_id, digest, fingerprints FROM archive_blocks "
    "WHERE application = ? AND number > ? ORDER BY number LIMIT ?"
)
"""Parameters: application, number (exclusive), limit."""
SELECT_LAST_BLOCKS: Final = (
    "SELECT number, count, last_id, digest, fingerprints FROM archive_blocks "
    "WHERE application = ? ORDER BY number DESC LIMIT 2"
)
"""The last block and the one before it. Parameter: application."""
INSERT_BLOCK: Final = (
    "INSERT OR REPLACE INTO archive_blocks (application, number, count, last_id, digest, fingerprints) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)


def delete_rows(table: TableName) -> str:
    """Delete all rows of a table. No parameters."""
    return f"DELETE FROM {table}"  # noqa: S608 (a quoted name)
