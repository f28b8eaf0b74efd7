"""An archive: one application's or several applications' tables in an SQLite file, and a record of what they contain.

The tables have the names and shapes of applications without a schema and a table prefix, so that an application whose
SQLALCHEMY_URL names the file runs on it. Two more tables hold the manifest, and the blocks of each application's
events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy import provisioning
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.errors import ArchiveError
from eventsourcing_sqlalchemy.tables import TableSpec
from eventsourcing_sqlalchemy.transfer import archive_tables as own
from eventsourcing_sqlalchemy.transfer.copying import Progress, copy_application
from eventsourcing_sqlalchemy.transfer.digest import Block, Chain
from eventsourcing_sqlalchemy.transfer.files import new_file
from eventsourcing_sqlalchemy.transfer.manifest import FORMAT, ArchivedApplication, Manifest, tables_of
from eventsourcing_sqlalchemy.transfer.tables import BEFORE_ALL, ApplicationTables, TableReader, TableWriter

__all__ = ["Archive", "append_archive", "write_archive"]


class Archive:
    """An archive file that exists, to read it. Close it, or use it in a ``with`` statement.

    Raises ArchiveError for a file that is missing, is no archive, has a newer format or has a changed manifest.
    """

    def __init__(self, path: str | Path) -> None:
        self._open(Path(path), writable=False)

    def _open(self, path: Path, *, writable: bool) -> None:
        self.path = path
        if not self.path.is_file():
            msg = f"The archive {path} does not exist, or is not a file."
            raise ArchiveError(msg, path=str(path))
        self.datastore = _open(self.path, writable=writable)
        """Reads the file."""
        try:
            self.manifest = self._read_manifest()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.datastore.close()

    def _read_manifest(self) -> Manifest:
        try:
            rows = self.datastore.run(lambda executor: executor.fetch(own.SELECT_MANIFEST), str(self.path))
        except PersistenceError as error:
            msg = f"The file {self.path} is not an archive, or is damaged: {error}"
            raise ArchiveError(msg, path=str(self.path)) from error
        if len(rows) != 1:
            msg = f"The file {self.path} has no manifest. It is not an archive."
            raise ArchiveError(msg, path=str(self.path))
        ((known, text, digest),) = rows
        if known != FORMAT:
            msg = (
                f"The archive {self.path} has the format {known}, and this version knows formats up to {FORMAT}. "
                "Install the version that wrote it, or a newer one."
            )
            raise ArchiveError(msg, path=str(self.path))
        return Manifest.parse(text, digest, str(self.path))

    def blocks(self, application: str) -> Iterator[Block]:
        """Yield the blocks of an application's events."""
        after = 0
        while rows := self.datastore.run(
            lambda executor: executor.fetch(own.SELECT_BLOCKS, (application, after, 100))  # noqa: B023 (runs at once)
        ):
            for row in rows:
                block = Block(*row)
                yield block
                after = block.number


def write_archive(
    path: str | Path,
    datastore: SQLAlchemyDatastore,
    applications: Sequence[ApplicationTables],
    *,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Write an archive of applications that share a database, in one snapshot, while others write.

    An existing file is replaced when the new one is complete. ``facts`` is kept as JSON in the manifest. Raises
    ArchiveError if another process is writing the file, and PersistenceError for what the databases refuse, such as a
    full disk.
    """
    with new_file(Path(path)) as file:
        target = _open(file, writable=True)
        try:
            target.run(_begin_file, str(path))
            manifest = _Filling(target, datastore, applications, None, progress).run(facts or {})
        finally:
            target.close()
    return manifest


def append_archive(
    path: str | Path,
    datastore: SQLAlchemyDatastore,
    applications: Sequence[ApplicationTables],
    *,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Add the events since an archive was written, and replace its snapshots and positions; all or nothing.

    ``facts`` replaces those of the same names. Raises ArchiveError unless the last events of the archive are those of
    the database, and if an application has written to the archive.
    """
    with _WritableArchive(path) as archive:
        known = {**archive.manifest.facts, **(facts or {})}
        return _Filling(archive.datastore, datastore, applications, archive, progress).run(known)


class _WritableArchive(Archive):
    """An archive to which events are added."""

    def __init__(self, path: str | Path) -> None:
        self._open(Path(path), writable=True)

    def close(self) -> None:
        with suppress(PersistenceError):
            self.datastore.run(lambda executor: executor.fetch(own.SINGLE_FILE))
        super().close()


def _open(path: Path, *, writable: bool) -> SQLAlchemyDatastore:
    return SQLAlchemyDatastore(url=own.url_of(path, writable=writable))


def _begin_file(executor: Executor) -> None:
    for statement in (*own.BEGIN_FILE, *own.CREATE):
        executor.fetch(statement)


class _Filling:
    """Copies applications into an archive's file. ``archive`` is what the file contains already."""

    def __init__(
        self,
        target: SQLAlchemyDatastore,
        source: SQLAlchemyDatastore,
        applications: Sequence[ApplicationTables],
        archive: Archive | None,
        progress: Progress | None,
    ) -> None:
        self._target = target
        self._source = source.without_scoped_session()
        self._applications = applications
        self._archive = archive
        self._progress = progress
        self._tables = {
            each.name: tables_of(each.name, tuple(spec.kind for spec in each.specs), each.originator_id_type)
            for each in applications
        }

    def run(self, facts: Mapping[str, Any]) -> Manifest:
        """Copy everything, and return the manifest."""
        missing = provisioning.find_missing(self._target, self._specs)
        if missing:
            provisioning.create(self._target, missing)
        return self._source.run(
            lambda reading: self._target.run(lambda writing: self._copy_all(reading, writing, facts))
        )

    @property
    def _specs(self) -> list[TableSpec]:
        return [spec for each in self._tables.values() for spec in each.specs]

    def _copy_all(self, reading: Executor, writing: Executor, facts: Mapping[str, Any]) -> Manifest:
        reader = TableReader(reading, self._source.dialect)
        reader.begin()
        created_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._target.dialect.begin(writing, self._target.settings)
        writer = TableWriter(writing, self._target.dialect, self._specs)
        copied = dict(self._archive.manifest.applications) if self._archive else {}
        for each in self._applications:
            copied[each.name] = self._copy(each, reader, writer, writing)
        manifest = Manifest(copied, created_at, self._source.dialect.server_version(reading), facts)
        reader.end()
        writing.fetch(own.DELETE_MANIFEST)
        writing.fetch(own.INSERT_MANIFEST, (FORMAT, *manifest.serialize()))
        writing.fetch("COMMIT")
        return manifest

    def _copy(
        self, source: ApplicationTables, reader: TableReader, writer: TableWriter, writing: Executor
    ) -> ArchivedApplication:
        target = self._tables[source.name]
        chain, after = Chain(), BEFORE_ALL
        if self._archive and source.name in self._archive.manifest.applications:
            chain, after = _continued(self._archive, source, reader, writing)
        for spec in target.specs:
            if spec.kind != "events":
                writing.fetch(own.delete_rows(spec.name))
        contents = copy_application(
            reader,
            source,
            writer,
            target,
            chain=chain,
            after=after,
            on_blocks=partial(_insert_blocks, writing, source.name),
            progress=self._progress,
        )
        kinds = tuple(spec.kind for spec in target.specs)
        return ArchivedApplication(source.name, target.originator_id_type, kinds, contents)


def _insert_blocks(executor: Executor, application: str, blocks: Sequence[Block]) -> None:
    executor.run_many(
        own.INSERT_BLOCK,
        [(application, each.number, each.count, each.last_id, each.digest, each.fingerprints) for each in blocks],
    )


def _continued(
    archive: Archive, application: ApplicationTables, reader: TableReader, writing: Executor
) -> tuple[Chain, int]:
    """Return the chain of an archive's events, and the last id; checks that they are those of a reader."""
    name = application.name
    archived = archive.manifest.applications[name]
    blocks = [Block(*row) for row in writing.fetch(own.SELECT_LAST_BLOCKS, (name,))]
    last, before = (*blocks, None, None)[:2]
    if last is None:
        return Chain(), BEFORE_ALL
    events = application.spec("events")
    assert events is not None
    chain = Chain(before)
    after = BEFORE_ALL if before is None else before.last_id
    full: list[Block] = []
    for page in reader.events(events, after=after, until=last.last_id):
        full += chain.add(page)
    if (full[0] if full else chain.rest()) != last:
        msg = (
            f"The archive {archive.path} cannot be continued: its last events of {name}, up to {last.last_id}, are not "
            "those of the database. Write a new archive to another file, and compare the two."
        )
        raise ArchiveError(msg, path=str(archive.path), application=name, event_id=last.last_id)
    events_there = archived.tables.spec("events")
    assert events_there is not None
    there = TableReader(writing, archive.datastore.dialect).count(events_there)
    if there != archived.contents.events:
        msg = (
            f"The archive {archive.path} cannot be continued: it has {there} events of {name}, and had "
            f"{archived.contents.events} when it was written. Write a new archive to another file."
        )
        raise ArchiveError(msg, path=str(archive.path), application=name)
    return chain, last.last_id
