"""Rebuilds the ledger of the tenant acme in a separate process, to be killed. Its progress is kept in a file.

It prints a line before it starts. It ends with 0 when the view is replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.rebuilds import ledger_fleet, rebuild


class FileItem:
    """An item of a job whose progress survives the process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def progress(self) -> Mapping[str, Any]:
        return dict(json.loads(self._path.read_text("utf-8"))) if self._path.exists() else {}

    def save_progress(self, progress: Mapping[str, Any]) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(progress), "utf-8")
        new.rename(self._path)

    def check(self) -> None:
        pass


def start(url: str, settings: Mapping[str, str], path: Path) -> subprocess.Popen[str]:
    """Start the process, and wait until it begins to work."""
    command = [sys.executable, "-m", "tests.support.rebuild_process", url, json.dumps(dict(settings)), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def main(url: str, settings: str, path: str) -> None:
    """Rebuild the view."""
    with ledger_fleet(url, json.loads(settings)) as tenants:
        tenants["acme"]
        print("ready", flush=True)  # noqa: T201 (the parent process reads it)
        rebuild(tenants, FileItem(Path(path)))


if __name__ == "__main__":
    main(*sys.argv[1:])
