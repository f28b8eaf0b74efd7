"""Metrics of forked processes that share a port, in the multi-process mode of prometheus-client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from tenancy.telemetry.metrics import measure
from tests.samples.training_school.application import TrainingSchool
from tests.support.fleets import fleet

with fleet(sys.argv[1], ["acme", "globex"]) as tenants:
    measure(tenants, max_tenants=1)
    for number in range(2):
        process = os.fork()
        if not process:
            for slug in "acme", "globex":
                tenants[slug].get(TrainingSchool).register("Fido", "sit")
            from tenancy.instruments import instruments
            instruments.counters.forget([tenants["acme"].id])
            sys.stdout.flush()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    print(tenants["acme"].id)
    print(generate_latest(registry).decode())
"""


def test_counters_of_all_processes_are_summed(postgres_url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-W", "error", "-c", PROGRAM, postgres_url]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    tenant_id, *lines = ended.stdout.splitlines()
    appended = {line for line in lines if line.startswith("tenancy_events_appended_total")}
    assert appended == {
        f'tenancy_events_appended_total{{application="TrainingSchool",tenant="{tenant_id}"}} 4.0',
        'tenancy_events_appended_total{application="TrainingSchool",tenant="other"} 4.0',
    }
