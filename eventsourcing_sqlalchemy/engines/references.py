"""One engine for each database in a process, shared by all applications.

The last application that releases it disposes the engine, and then no connection is left. This module does not depend
on schemas and tables.
"""

from __future__ import annotations

from functools import partial

from sqlalchemy.engine import URL

from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.engines.engine import EngineSource, SharedEngine
from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.locks import at_fork
from eventsourcing_sqlalchemy.settings import mask
from eventsourcing_sqlalchemy.shared_resources import Reference, SharedResources

__all__ = ["acquire_engine", "engines"]

engines: SharedResources[SharedEngine] = SharedResources(lambda shared: shared.dispose())
"""The engines of this process."""


def acquire_engine(source: EngineSource, settings: EngineSettings, application: str) -> Reference[SharedEngine]:
    """Return a reference to the engine of a source, which is created for its first reference.

    Raises SettingsError when the application asks for settings other than those that the engine was created with,
    naming both applications.
    """
    reference = engines.acquire(source.key(), partial(SharedEngine, source, settings, application))
    try:
        _check_settings(reference.resource, settings, application)
    except SettingsError:
        reference.release()
        raise
    return reference


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


def _before_fork() -> None:
    for shared in engines:
        shared.before_fork()


def _after_fork() -> None:
    for shared in engines:
        shared.after_fork()


at_fork(before=_before_fork, after_in_child=_after_fork)
