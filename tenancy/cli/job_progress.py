"""Show the progress of a job: a bar on a terminal, JSON lines, or a line for each failure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tenancy.cli import shapes
from tenancy.cli.output import json_of, note, printable, quoted, say

if TYPE_CHECKING:
    from tenancy.operations.jobs import ItemReport, Job

__all__ = ["JobProgress", "described"]


class JobProgress:
    """The progress of one job. Enter it for the time in which the job runs."""

    def __init__(self, job: Job, *, as_json: bool) -> None:
        self._job = job
        self._as_json = as_json
        self._bar: Any = None
        self._task: Any = None
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        if self._as_json:
            self._line("started", job=shapes.job(self._job))
        elif sys.stderr.isatty():
            self._bar = self._resources.enter_context(_bar())
            self._task = self._bar.add_task(self._job.kind, total=self._job.counts.total)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()

    def show(self, job: Job, ended: Sequence[ItemReport]) -> None:
        """Show the state of the job, and the items that have ended since the last call."""
        for item in ended:
            if self._as_json:
                self._line("item", item=shapes.item(item))
            elif item.error is not None:
                self._print(f"failed: {described(item)}")
        if self._bar is not None:
            self._bar.update(self._task, completed=job.counts.ended)

    def message(self, text: str) -> None:
        """Show a message for people."""
        if not self._as_json:
            self._print(text)

    def end(self, job: Job) -> None:
        """Show how the job has ended."""
        if self._as_json:
            self._line("ended", job=shapes.job(job))
            return
        counts = ", ".join(f"{number} {name}" for name, number in shapes.job(job)["counts"].items() if number)
        say(f"Job {job.id} ({printable(job.kind)}): {counts}.")

    def _print(self, text: str) -> None:
        if self._bar is None:
            note(text)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @staticmethod
    def _line(event: str, **values: object) -> None:
        say(json_of({"event": event, **values}))


def described(item: ItemReport) -> str:
    """Return a failed item's tenant and error in one line."""
    error = item.error if item.sqlstate is None else f"{item.error} {item.sqlstate}"
    where = f" at {item.frames[-1]}" if item.frames else ""
    tenant = str(item.tenant_id) if item.tenant is None else quoted(item.tenant)
    return f"{tenant} {printable(error)}{printable(where)}"


def _bar() -> Any:
    from rich.console import Console  # noqa: PLC0415 (slow; not needed by --help)
    from rich.progress import (  # noqa: PLC0415 (as above)
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415 (as above)

    class Rate(ProgressColumn):
        """Tenants per second."""

        def render(self, task: Any) -> Text:
            """Return the rate, once it is known."""
            return Text("" if task.speed is None else f"{task.speed:.1f}/s")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
