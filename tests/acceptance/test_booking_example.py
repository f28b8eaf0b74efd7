"""The example service works: its own tests pass, its processes serve together, and its deployment files are valid."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from tests.support.deadlines import wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "booking"


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of the example's processes."""
    return {**os.environ, "PYTHONPATH": str(EXAMPLE), "TENANCY_APP": "booking.fleet:make_fleet", **variables}


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_its_own_tests_pass(database: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--tenancy-database={database}"]
    done = subprocess.run(command, cwd=EXAMPLE, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def documents(path: Path) -> Iterator[Any]:
    """Yield the documents of a YAML file."""
    yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def test_kubernetes_manifests_are_valid() -> None:
    found = [each for path in (EXAMPLE / "deploy" / "kubernetes").glob("*.yaml") for each in documents(path)]
    assert sorted(each["kind"] for each in found) == ["ConfigMap", "Deployment", "Deployment", "Job", "Service"]
    for each in found:
        kubernetes_validate.validate(each, "1.32", strict=True)
    broken = {**found[0], "kind": "Deployment", "apiVersion": "apps/v1"}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.32", strict=True)


def commands_of_deployment() -> list[list[str]]:
    """Return the commands that the deployment files run in containers."""
    manifests = documents(EXAMPLE / "deploy" / "kubernetes" / "booking.yaml")
    templates = [each["spec"]["template"] for each in manifests if "template" in each.get("spec", {})]
    containers = [container for template in templates for container in template["spec"]["containers"]]
    (compose,) = documents(EXAMPLE / "deploy" / "compose.yaml")
    return [each["command"] for each in [*containers, *compose["services"].values()] if "command" in each]


def test_processes_of_the_deployment_serve_together(tmp_path: Path) -> None:
    """The commands of the files, on SQLite: migrate, then web and runner."""
    commands = commands_of_deployment()
    migrate = next(each for each in commands if each[0] == "sh")
    runner = next(each for each in commands if "--metrics-port" not in each and "runner" in each)
    assert all(each in (migrate, runner) or each[: len(runner)] == runner for each in commands)
    variables = environment(
        SQLALCHEMY_URL=f"sqlite:///{tmp_path / 'booking.db'}",
        BOOKING_HOST="example.com",
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    subprocess.run(migrate, env=variables, cwd=tmp_path, check=True, capture_output=True)
    listening = socket.create_server(("127.0.0.1", 0))
    port, descriptor = listening.getsockname()[1], listening.fileno()
    web = ["uvicorn", "--factory", "booking.web:make_app", "--fd", str(descriptor)]
    processes = [subprocess.Popen(each, env=variables, cwd=tmp_path, pass_fds=[descriptor]) for each in (web, runner)]
    try:
        with listening, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until(lambda: answers(client), "the web process")
            signed = client.post("/sign-up", headers={"host": "app.example.com"}, json={"slug": "salon", "name": "Ada"})
            assert signed.status_code == 201, signed.text
            salon = {"host": "salon.example.com"}
            booking = {"customer": "Bob", "starts_at": "2026-12-07T09:00:00"}
            assert client.post("/appointments", headers=salon, json=booking).status_code == 201
            expected = [{"time": "09:00", "customer": "Bob", "offer": "Consultation"}]
            wait_until(lambda: client.get("/agenda/2026-12-07", headers=salon).json() == expected, "the agenda")
    finally:
        for process in processes:
            process.terminate()
        assert [process.wait(60) for process in processes] in ([0, 0], [-15, 0])


def answers(client: httpx.Client) -> bool:
    """Return whether the web process answers."""
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False
