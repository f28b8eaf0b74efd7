"""Run a program for each of many tenants: several at once, each line of output with the slug of its tenant."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final

from tenancy.cli.errors import CommandError
from tenancy.cli.job_processes import interruptible
from tenancy.cli.output import json_of, note, printable, quoted, say
from tenancy.errors import PartlyDone, TenancyError

if TYPE_CHECKING:
    from tenancy import Tenancy, Tenant
    from tenancy.registry.queries import TenantQuery

__all__ = ["run_for_each"]

# Seconds between two looks for an interrupt.
_POLL: Final = 0.25


def run_for_each(
    tenants: Tenancy, query: TenantQuery, command: Sequence[str], *, parallel: int, stops: bool, as_json: bool
) -> None:
    """Run a program for each tenant that a query finds. With ``stops``, none is started after a failure.

    Raises CommandError when all have failed, when the program cannot be run, and when the command was interrupted;
    PartlyDone when some have failed.
    """
    programs = _Programs(command, as_json=as_json)
    with interruptible() as interrupted, ThreadPoolExecutor(parallel, thread_name_prefix="exec") as threads:
        running: set[Future[None]] = set()
        wanted = _environments(tenants, query, programs)
        try:
            while not (interrupted.is_set() or (stops and programs.failures)):
                started = next(wanted, None) if len(running) < parallel else None
                if started is not None:
                    running.add(threads.submit(programs.run, *started))
                    continue
                if not running:
                    break
                ended, running = wait(running, _POLL, FIRST_COMPLETED)
                for each in ended:
                    each.result()
            if interrupted.is_set():
                programs.terminate()
            for each in running:
                each.result()
        except BaseException:
            programs.terminate()
            raise
    _report(programs, was_interrupted=interrupted.is_set())


def _environments(tenants: Tenancy, query: TenantQuery, programs: _Programs) -> Iterator[tuple[Tenant, dict[str, str]]]:
    """Yield the tenants that can be read, with the variables of their programs."""
    from tenancy.registry.queries import find_tenants  # noqa: PLC0415 (slow; loaded by now)

    for tenant in find_tenants(tenants.fleet.registry, query):
        try:
            with tenants.scope(tenant):
                variables = tenants.env(tenant)
        except TenancyError as error:
            if error.tenant is None:
                raise
            programs.failures[tenant.slug] = error
        else:
            yield tenant, variables


class _Programs:
    """Running programs, and the failures of those that have ended. Safe to use from many threads."""

    def __init__(self, command: Sequence[str], *, as_json: bool) -> None:
        self._command = list(command)
        self._as_json = as_json
        # Guards the output and the set of processes; held while a line is written.
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()
        self._is_ending = False
        self.failures: dict[str, Exception] = {}
        """The errors of programs that have failed, and of tenants that cannot be read, by slug."""
        self.succeeded = 0

    def run(self, tenant: Tenant, variables: dict[str, str]) -> None:
        """Run the program of a tenant to its end."""
        process = self._start(variables)
        if process is None:
            return
        assert process.stdout is not None
        assert process.stderr is not None
        errors = threading.Thread(target=self._copy, args=(tenant, process.stderr, "stderr"), daemon=True)
        with process:
            errors.start()
            try:
                self._copy(tenant, process.stdout, "stdout")
            except BaseException:
                process.kill()
                raise
            finally:
                errors.join()
            code = process.wait()
        with self._lock:
            self._processes.discard(process)
            self.succeeded += code == 0
            if self._as_json:
                say(json_of({"tenant": tenant.slug, "tenant_id": str(tenant.id), "exit_code": code}))
        if code != 0:
            what = f"has exited with {code}" if code > 0 else f"was ended by signal {-code}"
            msg = f"The program of tenant {quoted(tenant.slug)} {what}."
            self.failures[tenant.slug] = TenancyError(msg, tenant=tenant.slug)

    def _start(self, variables: dict[str, str]) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._is_ending:
                return None
            try:
                process = subprocess.Popen(
                    self._command,
                    env={**os.environ, **variables},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    errors="backslashreplace",
                )
            except OSError as error:
                msg = f"{self._command[0]!r} cannot be run: {error.strerror}."
                remedy = "Pass the program and its arguments after --."
                raise CommandError(msg, remedy=remedy, code="not_executable") from error
            self._processes.add(process)
            return process

    def _copy(self, tenant: Tenant, lines: IO[str], stream: str) -> None:
        for line in lines:
            text = line.removesuffix("\n")
            with self._lock:
                if self._as_json:
                    say(json_of({"tenant": tenant.slug, "tenant_id": str(tenant.id), "stream": stream, "line": text}))
                elif stream == "stdout":
                    say(f"{printable(tenant.slug)}: {text}")
                else:
                    note(f"{printable(tenant.slug)}: {text}")

    def terminate(self) -> None:
        """Start no more programs, and terminate the running ones."""
        with self._lock:
            self._is_ending = True
            for process in self._processes:
                with suppress(ProcessLookupError):
                    process.terminate()


def _report(programs: _Programs, *, was_interrupted: bool) -> None:
    sys.stdout.flush()
    succeeded, failures = programs.succeeded, programs.failures
    if was_interrupted:
        msg = f"Interrupted: {succeeded} programs have succeeded, and {len(failures)} have failed or were ended."
        raise CommandError(msg, code="interrupted", failures=failures.values())
    if not failures:
        if not succeeded:
            note("No tenant fulfils the conditions.")
        return
    msg = f"Failed for {len(failures)} of {succeeded + len(failures)} tenants."
    if succeeded:
        raise PartlyDone(msg, failures=failures)
    raise CommandError(msg, code="failed", failures=failures.values())
