"""Where the executors of a job find the user's code."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from tenancy.cli.job_processes import ExecutorProcesses


def test_executors_find_the_users_code_without_the_directories_of_this_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    library = sysconfig.get_path("stdlib")
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), str(tmp_path / "missing"), *sys.path, library])
    # In place of this package, for the executor to import.
    package = tmp_path / "tenancy"
    package.mkdir()
    source = f"import os; open({str(seen)!r}, 'w').write(os.environ['PYTHONPATH'])"
    (package / "__main__.py").write_text(source, encoding="utf-8")
    (package / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    with ExecutorProcesses([], 1):
        pass
    paths = seen.read_text(encoding="utf-8").split(os.pathsep)
    assert paths[0] == str(tmp_path)
    assert str(Path(__file__).parents[3]) in paths
    assert not {str(tmp_path / "missing"), library, sysconfig.get_path("purelib")} & set(paths)
