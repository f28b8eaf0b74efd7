"""Processes are killed in hooks and reactions, and between these and their record: nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from uuid import uuid5

import pytest

from tenancy.operations.doctor import repair
from tests.acceptance.commands import Command
from tests.samples.hooked_kennels import notes, tenants
from tests.samples.kennels import Kennel
from tests.support.deadlines import wait_until

# The process ends where the named function is called, as with SIGKILL.
PROGRAM = """
import os, sys
from importlib import import_module
from tenancy.lifecycle import hooks, reactions
from tests.samples import hooked_kennels
hooks._LEASE = reactions._LEASE = 1.0
url, where, call = sys.argv[1:]
module, _, name = where.rpartition(".")
owner, _, function = module.partition(":")
target = import_module(owner)
for part in filter(None, function.split(".")):
    target = getattr(target, part)
setattr(target, name, lambda *_, **__: os._exit(9))
fleet = hooked_kennels.tenants(url)
exec(call)
"""
CREATE = 'fleet.create("acme")'
SEED = "tests.samples.hooked_kennels"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture(autouse=True)
def _log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KENNEL_LOG", str(tmp_path / "kennel.log"))


def die(url: str, where: str, call: str) -> None:
    """Run a call in a process that is killed at a function."""
    command = [sys.executable, "-c", PROGRAM, url, where, call]
    done = subprocess.run(command, env={**os.environ}, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 9, done.stderr


@pytest.mark.parametrize(
    ("where", "seeds"),
    [
        (f"{SEED}:.note", 1),  # the event is recorded, and the rest of the hook is not done
        ("tenancy.registry.hook_runs:HookRuns.finish", 2),  # between the hook and its marker
        ("tenancy.registry.process_leases:ProcessLease.release", 1),  # the marker is there
    ],
)
@pytest.mark.parametrize("again", ["repair", "create"])
def test_process_is_killed_while_it_creates_a_tenant(url: str, where: str, seeds: int, again: str) -> None:
    die(url, where, CREATE)
    with tenants(url) as fleet:
        assert fleet["acme"].status == "provisioning"
        (run,) = fleet.fleet.hooks.runs([fleet["acme"]])
        assert (run.attempts, run.error) == (1, None)
        if again == "create":
            fleet.create("acme", exist_ok=True)
        else:
            list(repair(fleet.fleet))
        acme = fleet["acme"]
        assert acme.status == "active"
        # At least once outside of the database; exactly once through the application.
        assert notes() == ["seed acme"] * seeds
        assert acme.get(Kennel).names() == ["Rex"]
        assert uuid5(acme.id, "Rex") in acme.get(Kennel).repository
        assert fleet.react().processed == 1


@pytest.mark.parametrize(
    ("where", "times"),
    [(f"{SEED}:.note", 1), ("tenancy.registry.reaction_store:ReactionStore.advance", 2)],
)
def test_process_is_killed_while_it_reacts(url: str, where: str, times: int) -> None:
    with tenants(url) as fleet:
        acme = fleet.create("acme")
        die(url, where, "fleet.react()")
        wait_until(lambda: fleet.react().owner is None, "the lease of the killed process expires")
        assert notes()[1:] == [f"activated acme {acme.id}/2"] * times


@pytest.mark.timeout(120)
def test_runners_are_killed_while_tenants_change(postgres_url: str) -> None:
    command = Command(postgres_url, app="tests.samples.hooked_kennels:tenants")
    start = ("runner", "start", "--workers", "1", "--lease", "1")
    with tenants(postgres_url) as fleet:
        fleet.init()
        slugs = [f"t{number}" for number in range(4)]
        runners = [command.start(*start, stderr=subprocess.DEVNULL) for _ in range(2)]
        try:
            for _ in fleet.create_many(slugs):
                pass
            for number in range(6):
                for slug in slugs:
                    (fleet.resume if number % 2 else fleet.suspend)(slug)
                if number % 3 == 1:
                    seen = len(notes())
                    wait_until(lambda seen=seen: len(notes()) > seen, "a runner reacts")  # type: ignore[misc]
                    owner = fleet.reactions.status()[0].owner or ""
                    (victim,) = [each for each in runners if f"-{each.pid}-" in owner] or runners[:1]
                    victim.kill()
                    victim.wait()
                    runners.remove(victim)
                    runners.append(command.start(*start, stderr=subprocess.DEVNULL))
            wait_until(lambda: fleet.reactions.status()[0].lag == 0, "the reactions", progress=lambda: len(notes()))
        finally:
            for each in runners:
                each.send_signal(signal.SIGTERM)
            codes = [each.wait(30) for each in runners]
        assert codes == [0, 0]
        lines = [line.split() for line in notes() if not line.startswith("seed")]
        for slug in slugs:
            # A repeated event follows itself; without repetitions, all are there in order.
            numbers = [int(key.partition("/")[2]) for _, of, key in lines if of == slug]
            assert [number for number, _ in groupby(numbers)] == list(range(2, 9))
