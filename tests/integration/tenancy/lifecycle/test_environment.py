"""A tenant's variables take precedence over the process's, and the registry reads none of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from eventsourcing.cipher import AESCipher
from eventsourcing.persistence import ProgrammingError
from eventsourcing.system import SingleThreadedRunner

from eventsourcing_sqlalchemy.errors import SettingsError
from tenancy import Tenancy
from tenancy.errors import TenantPurged
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import SYSTEM, Kennel, Visits
from tests.support import catalog
from tests.support import conflicting_environment as hostile


def elsewhere(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'hostile.db'}"


@pytest.mark.parametrize("prefix", ["", "KENNEL_"])
def test_variables_win(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: str) -> None:
    acme, globex = tenants.create("acme"), tenants.create("globex")
    acme.get(Kennel).register("Fido")
    for name, value in hostile.variables(elsewhere(tmp_path)).items():
        monkeypatch.setenv(f"{prefix}{name}", value)
    with Kennel(env=acme.env()) as kennel:
        assert kennel.names() == ["Fido"]
        kennel.take_snapshot(kennel.register("Rex"))
        assert acme.get(Kennel).names() == ["Fido", "Rex"]
    assert globex.get(Kennel).names() == []
    assert not (tmp_path / "hostile.db").exists()


@pytest.mark.parametrize("name", sorted(hostile.variables("")))
def test_each_process_variable_alone_is_ignored(
    sqlite_url: str,
    make_fleet: Callable[[str], MakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
) -> None:
    acme = make_fleet(sqlite_url)().create("acme")
    before = catalog.objects(sqlite_url)
    for variable in (name, f"KENNEL_{name}"):
        monkeypatch.setenv(variable, hostile.variables(elsewhere(tmp_path))[name])
        with Kennel(env=acme.env()) as kennel:
            kennel.register("Fido")
        monkeypatch.delenv(variable)
    assert acme.get(Kennel).names() == ["Fido", "Fido"]
    assert catalog.objects(sqlite_url) == before
    assert not (tmp_path / "hostile.db").exists()


def test_another_process(tenants: Tenancy, tmp_path: Path) -> None:
    """As started by `tenancy exec`: the tenant's variables take precedence over the process's own."""
    acme = tenants.create("acme")
    program = (
        "from tests.samples.kennels import Kennel; kennel = Kennel(); kennel.register('Rex'); print(kennel.names())"
    )
    own = {key: value for key, value in hostile.variables(elsewhere(tmp_path)).items() if key != "FACTORY_TOPIC"}
    prefixed = {f"KENNEL_{key}": value for key, value in own.items()}
    env = {**os.environ, **own, **prefixed, **acme.env()}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "['Rex']\n", done.stderr
    assert acme.get(Kennel).names() == ["Rex"]


def test_library_runners(tenants: Tenancy) -> None:
    acme = tenants.create("acme")
    tenants.create("globex")
    with SingleThreadedRunner[UUID](SYSTEM, env=acme.env()) as runner:
        runner.get(Kennel).register("Fido")
        assert runner.get(Visits).recorder.max_tracking_id("Kennel") == 1
    with Visits(env=tenants.env("globex")) as visits:
        assert visits.recorder.max_tracking_id("Kennel") is None


@pytest.mark.usefixtures("no_purge_delay")
def test_process_of_a_purged_tenant_recreates_no_table(
    tenants: Tenancy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = tenants.create("acme").env()
    with Kennel(env=env) as before:
        tenants.purge("acme")
        with pytest.raises(TenantPurged):
            before.register("Fido")
    with Kennel(env=env) as kennel:
        for call in (lambda: kennel.register("Fido"), kennel.names):
            with pytest.raises(TenantPurged, match="has been purged"):
                call()
        # Without admission, as in a process that was admitted just before.
        with monkeypatch.context() as patch:
            patch.setattr(kennel.factory.datastore, "_registry_cache", None)  # type: ignore[attr-defined]
            with pytest.raises(ProgrammingError):
                kennel.register("Fido")
    assert catalog.tenants(url) == set()


@pytest.mark.parametrize("value", ["", "acme", "b498b53d-8106-4da3-9ab5-d96bb26d485"])
def test_tenant_variable_that_is_not_an_id_is_refused(tenants: Tenancy, value: str) -> None:
    env = tenants.create("acme").env()
    env |= {key: value for key in env if key.endswith("TENANCY_TENANT")}
    with pytest.raises(SettingsError, match="tenancy env SLUG"):
        Kennel(env=env)


def test_registry_reads_no_application_variables(
    url: str, make_fleet: Callable[[str], MakeFleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "SQLALCHEMY_SCHEMA": "hostile",
        "SQLALCHEMY_TABLE_PREFIX": "hostile_",
        "IS_SNAPSHOTTING_ENABLED": "yes",
        "CIPHER_TOPIC": "eventsourcing.cipher:AESCipher",
        "CIPHER_KEY": AESCipher.create_key(16),
        "COMPRESSOR_TOPIC": "zlib",
        "PERSISTENCE_MODULE": "eventsourcing.popo",
        "ORIGINATOR_ID_TYPE": "uuid",
        "AGGREGATE_CACHE_MAXSIZE": "10",
    }
    for name, value in variables.items():
        for prefix in ("", "REGISTRY_", "TENANCY_REGISTRY_"):
            monkeypatch.setenv(f"{prefix}{name}", value)
    made = make_fleet(url)()
    made.create("acme").get(Kennel).register("Fido")
    for name in variables:
        for prefix in ("", "REGISTRY_", "TENANCY_REGISTRY_"):
            monkeypatch.delenv(f"{prefix}{name}")
    found = make_fleet(url)()
    assert [change.action for change in found.history("acme")] == ["create", "activate"]
    assert not any("hostile" in name for name in catalog.objects(url))
    stored = found.fleet.registry._recorder.select_notifications(None, 10)  # noqa: SLF001
    assert any(b"activate" in each.state for each in stored)


@pytest.mark.usefixtures("no_purge_delay")
@pytest.mark.parametrize("databases", [("sqlite_url", "postgres_url"), ("postgres_url", "sqlite_url")])
def test_registry_in_its_own_database(
    request: pytest.FixtureRequest, make_fleet: Callable[[str], MakeFleet], databases: tuple[str, str]
) -> None:
    control, url = (request.getfixturevalue(name) for name in databases)
    tenants = make_fleet(url)(TENANCY_CONTROL_URL=control)
    acme = tenants.create("acme")
    assert catalog.objects(url) == catalog.tenants(url)
    assert catalog.tenants(control) == set()
    with Kennel(env=acme.env()) as kennel:
        kennel.register("Fido")
        tenants.suspend("acme", reads=True)
        assert kennel.names() == ["Fido"]
    assert acme.get(Kennel).names() == ["Fido"]
    tenants.purge("acme")
    assert catalog.objects(url) == set()


def test_password_is_shown_only_in_the_variables(tenants: Tenancy) -> None:
    url = "postgresql://user:canary-password@127.0.0.1:1/db"
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url, "SQLALCHEMY_CONNECT_TIMEOUT": "1"}) as away:
        with pytest.raises(Exception, match="does not answer") as caught:
            away.create("acme")
        error: BaseException | None = caught.value
        assert "canary-password" not in repr(away) + repr(away.settings)
        while error is not None:
            assert "canary-password" not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__
        assert "canary-password" in away.env(tenants.create("acme"))["SQLALCHEMY_URL"]
