"""One engine for each database in a process, shared by all applications, leased and counted.

A lease is released once: by ``close()``, or, for applications that are never closed, when they are forgotten. The last
release disposes the engine, and then no connection is left. This module does not depend on schemas and tables.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Hashable

from sqlalchemy.engine import URL

from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.engines.engine import EngineSource, SharedEngine
from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.locks import Lock, at_fork, is_held
from eventsourcing_sqlalchemy.settings import mask

__all__ = ["EngineLease", "lease_engine"]


class EngineLease:
    """The right to use a shared engine, until it is released."""

    def __init__(self, key: Hashable, shared: SharedEngine) -> None:
        self.shared = shared
        self._key = key
        self._is_released = False

    def release(self) -> None:
        """Release the lease; a second call does nothing.

        Inside one of our locks, where only the collector can have called, this leaves a note for the next release.
        """
        if is_held():
            _abandoned.append(self)
            return
        self._release_now()
        _drain()

    def _release_now(self) -> None:
        with _lock:
            if not self._is_released:
                self._is_released = True
                _drop(self._key, self.shared)

    def release_when_collected(self, owner: object) -> None:
        """Release the lease when ``owner`` is collected, for owners that are never closed."""
        weakref.finalize(owner, _abandoned.append, self).atexit = False


_engines: dict[Hashable, SharedEngine] = {}
# Guards the dictionary and the counts; no connection is opened or closed under it.
_lock = Lock()
# Leases whose owners were collected. A finalizer runs anywhere, also inside a lock of the pool that disposing would
# need: it only leaves a note here, for the next call that leases or releases.
_abandoned: deque[EngineLease] = deque()
_to_dispose: deque[SharedEngine] = deque()


def lease_engine(source: EngineSource, settings: EngineSettings, application: str) -> EngineLease:
    """Return a lease of the engine for the source, which is created when this is its first lease.

    Raises SettingsError when the application asks for settings other than those that the engine was created with,
    naming both applications.
    """
    key = source.key()
    with _lock:
        shared = _engines.get(key)
        if shared is None:
            shared = _engines[key] = SharedEngine(source, settings, application)
        else:
            _check_settings(shared, settings, application)
        shared.leases += 1
    lease = EngineLease(key, shared)
    try:
        _drain()
    except BaseException:
        # Disposing of another engine was interrupted, and the caller gets no lease to release.
        lease.release()
        raise
    return lease


def _check_settings(shared: SharedEngine, settings: EngineSettings, application: str) -> None:
    for variable, wish in settings.asked():
        actual = shared.settings.get(variable)
        if wish != actual:
            by = (
                f"application {shared.asked_by[variable]!r} asked for"
                if variable in shared.asked_by
                else "the engine was created with"
            )
            shown = [mask(value) if isinstance(value, URL) else value for value in (wish, actual)]
            msg = (
                f"Application {application!r} asks for {variable}={shown[0]}, but {by} {variable}={shown[1]}, and all "
                "applications of a process share one "
                f"engine for {shared}. Give both the same value."
            )
            raise SettingsError(msg, variable=variable)


def _drop(key: Hashable, shared: SharedEngine) -> None:
    shared.leases -= 1
    if shared.leases == 0:
        del _engines[key]
        _to_dispose.append(shared)


def _drain() -> None:
    """Release the leases of collected owners and dispose of engines without leases; outside of all locks."""
    while _abandoned and not is_held():
        try:
            lease = _abandoned.popleft()
        except IndexError:
            break
        lease._release_now()  # noqa: SLF001 (there may be more of them than calls can be nested)
    while _to_dispose:
        try:
            shared = _to_dispose.popleft()
        except IndexError:
            break
        shared.dispose()


def _before_fork() -> None:
    for shared in list(_engines.values()):
        shared.before_fork()


def _after_fork() -> None:
    for shared in _engines.values():
        shared.after_fork()


at_fork(before=_before_fork, after_in_child=_after_fork)
