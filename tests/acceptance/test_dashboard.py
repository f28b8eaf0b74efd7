"""The Grafana dashboard: every query finds its metrics and labels in what real processes serve."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tenancy import Tenancy
from tests.acceptance.test_cli_runner import CODE
from tests.samples.training_school.application import TrainingSchool
from tests.support.deadlines import wait_until
from tests.support.fleets import fleet
from tests.support.waiting_job import WaitingJob

ROOT: Final = Path(__file__).parents[2]
DASHBOARD: Final = ROOT / "docs" / "grafana" / "tenancy.json"
# Prometheus adds them to each series.
OF_TARGETS: Final = {"instance", "job"}
PROMETHEUS: Final = shutil.which("prometheus", path=os.environ.get("TEST_PROMETHEUS") or os.environ["PATH"])


def queries() -> list[str]:
    """Return the queries of the dashboard."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def metrics_of(query: str) -> set[str]:
    """Return the names of metrics in a query."""
    return set(re.findall(r"\btenancy_\w+", query))


def labels_of(query: str) -> set[str]:
    """Return the names of labels in a query."""
    grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(",")}
    return (grouped | set(re.findall(r'(\w+)\s*=~?\s*"', query))) - OF_TARGETS


def scrape(port: int) -> dict[str, set[str]]:
    """Return the names of a process's metrics with the labels of each."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def post(port: int, path: str) -> int:
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}{path}", method="POST"), timeout=10) as response:
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code


@contextmanager
def runner(url: str, directory: Path) -> Iterator[int]:
    """Yield the metrics port of a real runner."""
    (directory / "kennel_fleet.py").write_text(CODE)
    port = free_port()
    environment = {**os.environ, "SQLALCHEMY_URL": url, "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tenancy", "--app", "kennel_fleet:tenants", "runner", "start"]
    log = directory / "runner.log"
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--metrics-port", str(port)], stderr=file, env=environment)
        with process:
            try:
                wait_until(lambda: "Runner started" in log.read_text() or process.poll() is not None, "it starts")
                assert process.poll() is None, log.read_text()
                yield port
            finally:
                process.kill()


@contextmanager
def service(url: str) -> Iterator[int]:
    """Yield the port of a real web service."""
    command = [sys.executable, "-m", "tests.support.measured_service", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def processes(url: str, directory: Path) -> Iterator[tuple[Tenancy, list[int]]]:
    """Yield a fleet, and the metrics ports of a runner, which has failures, and of a service, which has refusals."""
    with ExitStack() as resources:
        tenants = resources.enter_context(fleet(url, ["acme", "globex", "suspended"]))
        tenants.suspend("suspended")
        ports = [resources.enter_context(runner(url, directory)), resources.enter_context(service(url))]
        tenants["globex"].get(TrainingSchool).register("Rex", "poison")
        assert post(ports[1], "/t/acme/conflict") == 201
        assert post(ports[1], "/t/suspended/dogs") == 403
        # A job that runs until the end of the test.
        resources.enter_context(WaitingJob.running(tenants, threading.Event()))
        yield tenants, ports


def test_metrics_and_labels_exist_in_real_processes(postgres_url: str, tmp_path: Path) -> None:
    wanted = set().union(*map(metrics_of, queries()))
    assert len(wanted) > 15
    with processes(postgres_url, tmp_path) as (_, ports):

        def found() -> dict[str, set[str]]:
            merged: dict[str, set[str]] = {}
            for port in ports:
                for name, labels in scrape(port).items():
                    merged.setdefault(name, set()).update(labels)
            return merged

        wait_until(lambda: wanted <= found().keys(), "all are served", progress=lambda: len(found()))
        served = found()
    for query in queries():
        assert labels_of(query) <= set().union(*(served[name] for name in metrics_of(query))), query
    ours = {name for name in served if name.startswith("tenancy_") and not name.endswith("_created")}
    assert ours == wanted, "the dashboard shows every metric"


def test_missing_metrics_and_labels_are_noticed() -> None:
    """Proves that the test above can fail."""
    query = 'sum by (a, instance) (rate(tenancy_x_total{b="c"}[5m])) / tenancy_y'
    assert (metrics_of(query), labels_of(query)) == ({"tenancy_x_total", "tenancy_y"}, {"a", "b"})


@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus; set TEST_PROMETHEUS to its folder")
def test_queries_in_prometheus(postgres_url: str, tmp_path: Path) -> None:
    port = free_port()

    def ask(query: str) -> Any:
        expression = quote(query.replace("$__rate_interval", "10s"))
        with urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={expression}", timeout=10) as response:
            return json.load(response)["data"]["result"]

    def answered(query: str) -> bool:
        try:
            return bool(ask(query))
        except OSError:  # it starts
            return False

    with processes(postgres_url, tmp_path) as (_, ports):
        targets = ", ".join(f"'127.0.0.1:{each}'" for each in ports)
        (tmp_path / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: tenancy\n"
            f"  static_configs: [{{targets: [{targets}]}}]\n"
        )
        assert PROMETHEUS is not None
        command = [
            PROMETHEUS,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
        ]
        log = (tmp_path / "prometheus.log").open("w")
        with log, subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=log) as process:
            try:
                for query in queries():
                    wait_until(lambda query=query: answered(query), f"an answer to {query}")  # type: ignore[misc]
                assert ask("count(up == 1)")[0]["value"][1] == "2"
            finally:
                process.kill()
