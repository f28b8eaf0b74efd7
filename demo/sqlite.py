"""The demo on SQLite: one file, a table prefix for each application."""

import shutil
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
from sqlalchemy import NullPool, create_engine

from demo.databases import Database, ask

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


class SQLiteDatabase(Database):
    """A table prefix for each application."""

    placement_variable = "SQLALCHEMY_TABLE_PREFIX"
    placement_noun = "table prefix"
    placement_noun_plural = "table prefixes"

    def _open(self, cleaning: ExitStack) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="tenancy-demo-"))
        self._file = self._directory / "demo.db"
        cleaning.callback(self._end)
        self.url = f"sqlite:///{self._file}"
        synchronous, journal_mode = ask(self.url, "PRAGMA synchronous", "PRAGMA journal_mode")
        # Without a pool: pooled connections would be counted as the applications'.
        self._observer = create_engine(self.url, poolclass=NullPool)
        self.headline = (
            f"SQLite {sqlite3.sqlite_version}, one file      driver sqlite3      "
            f"synchronous {SYNCHRONOUS[synchronous]}, journal {journal_mode}"
        )

    def _end(self) -> None:
        if self._keep:
            self.kept = str(self._file)
        else:
            shutil.rmtree(self._directory, ignore_errors=True)

    def remains(self) -> str:
        return "" if self._keep or not self._directory.exists() else f"the directory {self._directory}"

    def template(self, stem: str) -> str:
        return f"{stem}_"

    @property
    def fleet_environment(self) -> Mapping[str, str]:
        return {"SQLALCHEMY_URL": self.url}

    def tables(self) -> Sequence[tuple[str, str]]:
        return [("", name) for (name,) in self.query(TABLES)]

    def connections(self) -> int:
        # Each connection holds the file open once.
        return sum(file.path == str(self._file) for file in psutil.Process().open_files())
