"""Which failures to drop a table are retried: those of a table in use, and no others."""

import sqlite3

import pytest
from eventsourcing.persistence import OperationalError

from tenancy.storage.remover import is_in_use


class ServerError(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("the relation is locked, it says")
        self.sqlstate = sqlstate


def raised(message: str, cause: Exception | None = None) -> OperationalError:
    error = OperationalError(message)
    error.__cause__ = cause
    return error


def sqlite(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (raised("in use", ServerError("55P03")), True),
        (raised("in use", ServerError("40P01")), True),
        (raised("the disk is full; it is locked", ServerError("53100")), False),
        (raised("in use", sqlite("SQLITE_BUSY")), True),
        (raised("full", sqlite("SQLITE_FULL")), False),
        (raised("The SQLite database is locked: another thread writes"), True),
        (raised("Cannot connect"), False),
    ],
)
def test_only_a_table_in_use_is_retried(error: OperationalError, expected: bool) -> None:
    assert is_in_use(error) is expected
