"""Findings about installed distributions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.acceptance.commands import ROOT


def test_two_distributions_of_one_package_are_found(tmp_path: Path) -> None:
    published = tmp_path / "eventsourcing_sqlalchemy-1.0.1.dist-info"
    published.mkdir()
    (published / "METADATA").write_text("Metadata-Version: 2.1\nName: eventsourcing-sqlalchemy\nVersion: 1.0.1\n")
    (published / "RECORD").write_text("eventsourcing_sqlalchemy/__init__.py,,\n")
    program = "from tenancy.operations.doctor import installation; print(*installation.check())"
    for paths, level in (([str(ROOT)], "ok"), ([str(ROOT), str(tmp_path)], "failure")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"level='{level}'" in done.stdout, done.stdout
        assert ("1.0.1" in done.stdout) is (level == "failure")
