"""The wheel holds the two packages, and works without the checkout and with the base requirements only."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.pages import ROOT, blocks_of, commands_of

PACKAGES: Final = ("eventsourcing_sqlalchemy", "tenancy")

FLEET: Final = """
from eventsourcing.system import ProcessApplication, System
from school import Dog, TrainingSchool

import eventsourcing_sqlalchemy
import tenancy


class Register(ProcessApplication):
    name = "register"

    def policy(self, domain_event, processing_event):
        processing_event.collect_events(Dog(f"copy of {domain_event.name}"))


tenants = tenancy.Tenancy(
    system=System(pipes=[[TrainingSchool, Register]]), env={"SQLALCHEMY_URL": "sqlite:///tenants.db"}
)
acme, globex = tenants.create_many(["acme", "globex"])
with tenants.runner(workers=1) as runner:
    acme.get(TrainingSchool).enrol("Fido")
    runner.wait("acme", timeout=30)
for tenant in (acme, globex):
    print(tenant.slug, tenant.get(Register).recorder.max_notification_id())
tenants.suspend("globex")
tenants.purge("acme")
print([(tenant.slug, str(tenant.status)) for tenant in tenants])
tenants.close()
for package in (eventsourcing_sqlalchemy, tenancy):
    print(package.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    directory = tmp_path_factory.mktemp("dist")
    execute([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory], ROOT)
    (wheel,) = directory.iterdir()
    return wheel


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and its base requirements only."""
    directory = tmp_path_factory.mktemp("environment")
    execute([sys.executable, "-m", "venv", "--without-pip", directory], directory)
    python = directory / "bin" / "python"
    execute([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", wheel], directory)
    return python


def execute(command: list[str | Path], directory: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command that must succeed, and return its output."""
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_python(python: Path, source: str, directory: Path, env: Mapping[str, str]) -> str:
    """Run a program in the environment, with warnings as errors and no other variables, and return its output."""
    program = directory / "program.py"
    program.write_text(source, encoding="utf-8")
    return execute([python, "-W", "error", program], directory, env)


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert inside == modules | {f"{package}/py.typed" for package in PACKAGES}


def test_the_readme_and_a_fleet_run_without_the_checkout(python: Path, tmp_path: Path) -> None:
    env: dict[str, str] = {}
    blocks = blocks_of(ROOT / "README.md")
    on_sqlite = next(number for number, block in enumerate(blocks) if "postgresql:" in block.source)
    outputs = 0
    for block, following in pairwise(blocks[: on_sqlite + 1]):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.source, encoding="utf-8")
        elif block.language == "shell":
            exports = [command[1] for command in commands_of(block.source) if command[0] == "export"]
            env |= dict(each.split("=", 1) for each in exports)
        elif block.language == "python":
            assert run_python(python, block.source, tmp_path, env) == following.source, block
            outputs += 1
    assert outputs == 2, "a fleet, and the quick start"
    assert (tmp_path / "school.db").exists()

    *lines, core, tenancy = run_python(python, FLEET, tmp_path, {}).splitlines()
    assert lines == ["acme 1", "globex None", "[('globex', 'suspended')]"]
    assert all(Path(each).is_relative_to(python.parents[1]) for each in (core, tenancy))


def test_the_command_names_the_missing_extra(python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [python.with_name("tenancy"), "list"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert re.search(r"pip install '?eventsourcing-sqlalchemy\[cli\]", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
