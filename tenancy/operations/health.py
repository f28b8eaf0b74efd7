"""Ask all databases of a fleet whether they answer, within a deadline and without a side effect."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eventsourcing_sqlalchemy.locks import renew_after_fork
from tenancy.arguments import check_type
from tenancy.errors import InvalidArgument
from tenancy.storage.shard import check_exists

if TYPE_CHECKING:
    from tenancy.fleet import Fleet

__all__ = ["DatabaseHealth", "Health", "HealthChecks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseHealth:
    """Whether one database of a fleet answers."""

    name: str
    """``registry``, ``tenants``, or the name of a view over all tenants that has a database of its own."""
    seconds: float
    """How long the answer took, or how long it has been missing."""
    error: Exception | None = field(default=None, repr=False)
    """Why it cannot be used; a TimeoutError if it has not answered in time."""

    @property
    def is_healthy(self) -> bool:
        """Whether the database has answered, and can be used."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the databases of a fleet answer."""

    databases: tuple[DatabaseHealth, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether all databases have answered, and can be used."""
        return all(each.is_healthy for each in self.databases)


class _Check:
    """One question to one database, asked in a thread of its own: a driver cannot be interrupted."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._started_at = time.monotonic()
        self._seconds: Future[float] = Future()

    def start(self) -> None:
        try:
            threading.Thread(target=self._run, name="tenancy-ping", daemon=True).start()
        except RuntimeError as error:  # the process cannot have more threads
            self._seconds.set_exception(error)

    def _run(self) -> None:
        try:
            self._ask()
        except Exception as error:  # noqa: BLE001 (whatever it is, the database cannot be used)
            self._seconds.set_exception(error)
        else:
            self._seconds.set_result(time.monotonic() - self._started_at)

    @property
    def is_done(self) -> bool:
        return self._seconds.done()

    def wait(self, name: str, seconds: float) -> DatabaseHealth:
        """Return the answer, or after ``seconds`` that it is missing."""
        try:
            error = self._seconds.exception(seconds)
        except TimeoutError:
            passed = time.monotonic() - self._started_at
            return DatabaseHealth(name=name, seconds=passed, error=TimeoutError("The database has not answered."))
        if error is None:
            return DatabaseHealth(name=name, seconds=self._seconds.result())
        assert isinstance(error, Exception)
        return DatabaseHealth(name=name, seconds=time.monotonic() - self._started_at, error=error)


class HealthChecks:
    """The databases of a fleet, and the questions in progress. Safe to use from many threads.

    A database is asked once at a time: while it does not answer, further calls wait for the same question.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Start without questions, also in the child of a fork, where their threads do not exist."""
        self._lock = threading.Lock()
        self._checks: dict[str, _Check] = {}

    def ping(self, timeout: float) -> Health:
        """Ask all databases, and wait for at most ``timeout`` seconds in all."""
        check_type("The timeout", timeout, (int, float), "a number of seconds")
        if not timeout >= 0:  # refuses "nan" too
            msg = f"The timeout is invalid: {timeout}."
            raise InvalidArgument(msg, remedy="Pass a number of seconds, at least 0.")
        deadline = time.monotonic() + timeout
        checks = [(name, self._check(name, ask)) for name, ask in self._questions()]
        return Health(tuple(check.wait(name, max(0.0, deadline - time.monotonic())) for name, check in checks))

    def _check(self, name: str, ask: Callable[[], object]) -> _Check:
        with self._lock:
            check = self._checks.get(name)
            if check is None or check.is_done:
                check = self._checks[name] = _Check(ask)
                check.start()
            return check

    def _questions(self) -> Iterator[tuple[str, Callable[[], object]]]:
        fleet = self._fleet
        yield "registry", self._ask_registry
        yield "tenants", fleet.shard.ping
        for each in fleet.cross_tenant:
            if each.url is not None:
                yield each.name, each.ping

    def _ask_registry(self) -> None:
        registry = self._fleet.registry
        check_exists(registry.datastore, self._fleet.settings.control_url)
        # Checks the format once in a process: steps of a migration leave the registry usable for this version.
        registry.position()
