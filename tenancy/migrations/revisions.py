"""The script directory of a fleet's migrations: revisions, their order, and Alembic's configuration.

Alembic keeps the running migration in module globals, so one process runs one at a time: :data:`alembic_lock`.
"""

from __future__ import annotations

import threading
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.locks import renew_after_fork
from tenancy.errors import TenancyError

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import Script, ScriptDirectory

__all__ = ["RevisionDirectory", "alembic_lock", "revision_directory"]


class _AlembicLock(AbstractContextManager[None]):
    """A reentrant lock that is free in the child of a fork."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()


alembic_lock: Final = _AlembicLock()
"""Held while Alembic loads revisions or runs them: blocks other migrations in this process, and nothing else."""


class RevisionDirectory:
    """The revisions of one script directory. Safe to use from many threads.

    Every method raises SettingsError when the directory has not been set up, and TenancyError when Alembic is missing
    or rejects the revisions.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loaded: tuple[tuple[tuple[str, int], ...], ScriptDirectory] | None = None

    def config(self, **attributes: Any) -> Config:
        """Return a new configuration of Alembic; ``env.py`` finds the attributes in ``context.config``."""
        with explained():
            from alembic.config import Config  # noqa: PLC0415 (an extra; slow)

        config = Config(cmd_opts=Namespace(quiet=True))
        config.set_main_option("script_location", str(self.path).replace("%", "%%"))
        config.attributes.update(attributes)
        return config

    def script(self) -> ScriptDirectory:
        """Return the revisions, loaded again when a file was added, changed or removed."""
        stamp = self._stamp()
        with alembic_lock, explained():
            if self._loaded is None or self._loaded[0] != stamp:
                from alembic.script import ScriptDirectory  # noqa: PLC0415 (an extra; slow)

                self._loaded = stamp, ScriptDirectory.from_config(self.config())
            return self._loaded[1]

    def _stamp(self) -> tuple[tuple[str, int], ...]:
        if not (self.path / "env.py").is_file():
            msg = (
                f"TENANCY_MIGRATIONS names {str(self.path)!r}, which has no env.py. Create it: tenancy migrations init"
            )
            raise SettingsError(msg, variable="TENANCY_MIGRATIONS")
        files = (self.path / "versions").glob("*.py")
        return tuple(sorted((file.name, file.stat().st_mtime_ns) for file in files))

    def heads(self) -> tuple[str, ...]:
        """Return the newest revision of each branch, sorted; empty before the first revision."""
        with alembic_lock, explained():
            return tuple(sorted(self.script().get_heads()))

    def revision(self, identifier: str) -> str:
        """Return the full id of a revision, which may be shortened, a branch label or a branch's head."""
        return self._one(identifier).revision

    def message(self, revision: str) -> str:
        """Return a revision's subject."""
        return self._one(revision).doc

    def file(self, revision: str) -> Path:
        """Return a revision's file."""
        return Path(self._one(revision).path)

    def _one(self, identifier: str) -> Script:
        with alembic_lock, explained():
            found = self.script().get_revision(identifier)
        if found is None:
            msg = f"{identifier!r} is not a revision."
            raise TenancyError(msg, remedy="List them: tenancy migrations heads")
        return found

    def applied(self, revisions: Iterable[str]) -> frozenset[str] | None:
        """Return the revisions with all that they build on, or None when one of them is not in the directory."""
        with alembic_lock, explained():
            script = self.script()
            known = {each.revision: each for each in script.walk_revisions()}
            found: set[str] = set()
            waiting = list(revisions)
            while waiting:
                revision = waiting.pop()
                if revision not in known:
                    return None
                if revision not in found:
                    found.add(revision)
                    waiting += _below(script, known[revision])
        return frozenset(found)

    def is_behind(self, revisions: tuple[str, ...]) -> bool:
        """Return whether a tenant with these revisions lacks some; one with newer revisions than this code does not."""
        heads = self.heads()
        if tuple(sorted(revisions)) == heads:
            return False
        applied = self.applied(revisions)
        return applied is not None and not applied.issuperset(heads)

    def serves(self, revisions: tuple[str, ...], required: str) -> bool:
        """Return whether a tenant with these revisions has a required one, or is newer than this code."""
        applied = self.applied(revisions)
        return applied is None or self.revision(required) in applied


def _below(script: ScriptDirectory, revision: Script) -> Iterator[str]:
    """Yield what a revision builds on: the revisions before it, and those of other branches that it depends on."""
    for identifiers in (revision.down_revision, revision.dependencies):
        for identifier in (identifiers,) if isinstance(identifiers, str) else identifiers or ():
            for each in script.get_revisions(identifier):
                if each is not None:
                    yield each.revision


@contextmanager
def explained() -> Iterator[None]:
    """Raise TenancyError for what Alembic refuses, and when it is not installed."""
    try:
        from alembic.util import CommandError  # noqa: PLC0415 (an extra; slow)
    except ModuleNotFoundError as error:
        msg = "Alembic is not installed."
        raise TenancyError(msg, remedy="Install it: pip install 'eventsourcing-sqlalchemy[migrations]'") from error
    try:
        yield
    except CommandError as error:
        msg = f"{error}".rstrip(".")
        raise TenancyError(f"{msg}.", remedy="Fix the revisions: tenancy migrations heads") from error


@lru_cache(maxsize=16)
def revision_directory(path: Path) -> RevisionDirectory:
    """Return the process's directory for a path."""
    return RevisionDirectory(path)
