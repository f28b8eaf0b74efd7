"""The contestants' virtual environments, beside `.venv`: two packages of one name cannot share one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks.catalog import UPSTREAM_VERSION, Home

CHECKOUT: Final = Path(__file__).resolve().parents[1]
HOMES: Final[tuple[Home, ...]] = ("ours", "upstream", "native")

_STAMP: Final = "benchmarks-requirements"


class EnvironmentFailedError(Exception):
    """A virtual environment could not be created. The message holds the installer's output."""


def requirements(home: Home) -> list[str]:
    """Return pip's arguments for an environment.

    Ours and native get the same version of the library; upstream pins its own, and SQLAlchemy's. Native gets the
    compiled driver, because it is faster.
    """
    library = metadata.version("eventsourcing")
    return {
        "ours": ["--editable", f"{CHECKOUT}[psycopg]", f"eventsourcing=={library}"],
        "upstream": [f"eventsourcing-sqlalchemy=={UPSTREAM_VERSION}", "psycopg2-binary"],
        "native": [f"eventsourcing[postgres]=={library}", "psycopg[binary]"],
    }[home]


def directory(home: Home) -> Path:
    """Return the environment's directory, which may not exist."""
    return CHECKOUT / f".venv-bench-{home}"


def find_python(home: Home) -> Path | None:
    """Return the interpreter of an environment that is complete and up to date, or None."""
    stamp = directory(home) / _STAMP
    return _python(home) if stamp.exists() and stamp.read_text() == _wanted(home) else None


def make_python(home: Home) -> Path:
    """Return an environment's interpreter; create the environment if it is missing or outdated.

    Raises EnvironmentFailedError.
    """
    found = find_python(home)
    if found is not None:
        return found
    shutil.rmtree(directory(home), ignore_errors=True)
    venv.create(directory(home), symlinks=True)
    command = [*_installer(_python(home)), *requirements(home)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise EnvironmentFailedError(f"Cannot create {directory(home)}:\n{done.stdout.strip()}")
    (directory(home) / _STAMP).write_text(_wanted(home))
    return _python(home)


def _python(home: Home) -> Path:
    return directory(home) / "bin" / "python"


def _wanted(home: Home) -> str:
    lines = [*requirements(home), sys.version]
    if home == "ours":
        lines.append((CHECKOUT / "pyproject.toml").read_text())
    return "\n".join(lines)


def _installer(python: Path) -> list[str]:
    """Return the command that installs into an environment: uv, or a pip outside it.

    Debian's Python cannot install pip into it, and `.venv` itself may lack pip.
    """
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--quiet", "--python", str(python)]
    bases = (sys.executable, str(Path(sys.base_prefix) / "bin" / "python3"), "python3.11", "python3")
    for base in bases:
        pip = [base, "-m", "pip"]
        if shutil.which(base) and subprocess.run([*pip, "--version"], check=False, capture_output=True).returncode == 0:
            return [*pip, "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    raise EnvironmentFailedError(
        "Cannot install the contestants: neither uv nor a Python with pip was found. Install uv."
    )
