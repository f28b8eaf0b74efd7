"""Count the Python calls of a warm save, a tenant creation, and a warm runner slice for one event.

python -m benchmarks.calls [URL]

Without a URL, a SQLite file is used. A re-entry is a call back into a file that is already on the stack, below another
file. Readers of the code must follow each of them. Only calls into the two packages count.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import eventsourcing_sqlalchemy
from rich.console import Console
from rich.table import Table
from tenancy import Tenancy

from benchmarks.runners.system import SYSTEM, Source

ROOT: Final = Path(eventsourcing_sqlalchemy.__file__).parents[1]
PACKAGES: Final = tuple(f"{ROOT / package}/" for package in ("eventsourcing_sqlalchemy", "tenancy"))
_WORK: Final = "tenancy/runner/worker.py:Worker._run_slice"


class Trace:
    """Calls into the two packages: all of a thread, or those inside a function during its last run."""

    def __init__(self, inside: str | None = None) -> None:
        self._inside = inside
        self._begin()
        self._is_on = inside is None

    def _begin(self) -> None:
        self.calls = 0
        self.files: set[str] = set()
        self.reentries: Counter[str] = Counter()
        self._stack: list[str] = []
        self._is_on = True

    def profile(self, frame: FrameType, event: str, _: Any) -> None:
        """Record a call or a return; see `sys.setprofile`."""
        file = frame.f_code.co_filename
        if event not in ("call", "return") or not file.startswith(PACKAGES):
            return
        name = f"{file.removeprefix(f'{ROOT}/')}:{frame.f_code.co_qualname}"
        if event == "call":
            if name == self._inside:
                self._begin()
            if self._is_on:
                self._called(file, name)
        elif self._is_on and self._stack:
            self._stack.pop()
            self._is_on = self._inside is None or bool(self._stack)

    def _called(self, file: str, name: str) -> None:
        self.calls += 1
        self.files.add(file)
        if self._stack and self._stack[-1] != file and file in self._stack:
            self.reentries[name] += 1
        self._stack.append(file)


def traced(work: Callable[[], object]) -> Trace:
    """Run `work` and return its calls in this thread."""
    trace = Trace()
    sys.setprofile(trace.profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return trace


def main(url: str) -> None:
    """Print the counts, then the re-entries."""
    traces: dict[str, Trace] = {}
    slice_ = Trace(_WORK)
    with Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": url}) as tenants:
        for number in range(3):
            tenants.create(f"warm{number}")
        traces["tenants.create()"] = traced(lambda: tenants.create("acme"))
        source = tenants["acme"].get(Source)
        for _ in range(10):
            source.write()
        traces["save()"] = traced(source.write)
        threading.setprofile(slice_.profile)
        try:
            with tenants.runner(workers=1) as runner:
                for _ in range(10):
                    source.write()
                    runner.wait("acme")
        finally:
            threading.setprofile(None)  # None stops profiling
        traces["runner slice"] = slice_
    table = Table("what", "calls", "files", "re-entries")
    for what, trace in traces.items():
        table.add_row(what, str(trace.calls), str(len(trace.files)), str(trace.reentries.total()))
    console = Console()
    console.print(table)
    for what, trace in traces.items():
        for name, count in trace.reentries.most_common():
            console.print(f"  {what}: {count} x {name}", highlight=False)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(f"sqlite:///{directory}/fleet.db")
