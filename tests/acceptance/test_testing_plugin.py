"""The pytest plugin, in test suites of its users: each runs as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import sqlalchemy as sa

from tenancy.testing.postgresql import Postgres
from tests.acceptance.commands import ROOT
from tests.support.deadlines import wait_until

SERVICE = """
from uuid import UUID
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.system import ProcessApplication, System
from tenancy import Tenancy

class Visit(Aggregate):
    @event("Booked")
    def __init__(self, dog: str) -> None:
        self.dog = dog

class Visits(Application[UUID]):
    def book(self, dog):
        visit = Visit(dog)
        self.save(visit)
        return visit.id

class Diary(ProcessApplication[UUID]):
    def policy(self, domain_event, processing_event):
        processing_event.collect_events(Visit(domain_event.dog))

tenants = Tenancy(system=System(pipes=[[Visits, Diary]]))
"""
SUITE = """
import asyncio, os, unittest
import pytest
from service import Diary, Visits, tenants as fleet

@pytest.mark.parametrize("number", range(6))
def test_new_tenant(tenant, follow, number):
    visits = tenant.get(Visits)
    visits.book("Fido")
    assert visits.recorder.max_notification_id() == 1
    assert follow() == 1
    assert tenant.get(Diary).recorder.max_notification_id() == 1
    with open(os.environ["USED"], "a") as file:
        file.write(f"{tenant.id} {os.environ['SQLALCHEMY_URL']}\\n")

def test_purges(tenants, new_tenant, time_travel):
    assert tenants is fleet
    for slug in ("acme", 'Ünï-cödé "x"'):
        tenants.delete(new_tenant(slug))
    assert not tenants.due()
    time_travel(days=31)
    assert len(list(tenants.purge_many(tenants.due()))) == 2

class TestCase(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _use(self, tenant):
        self.tenant = tenant

    def test_case(self):
        async def book():
            return await asyncio.to_thread(self.tenant.get(Visits).book, "Rex")
        assert asyncio.run(book()) in self.tenant.get(Visits).repository
"""
SETTINGS = "[pytest]\ntenancy_app = service:tenants\ntenancy_requests = header X-Tenant\n"
OUTSIDE = ("SQLALCHEMY_", "TENANCY_", "PYTEST_", "PERSISTENCE_MODULE")


@pytest.fixture(scope="session")
def temporary() -> Iterator[Path]:
    """The directory of temporary files: a short path that the server's user can read, because of its socket."""
    with TemporaryDirectory(prefix="t-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def suite(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a service and its tests."""
    monkeypatch.setenv("TEST_SUITE_TMPDIR", str(temporary))
    for name, source in {"service.py": SERVICE, "test_service.py": SUITE, "pytest.ini": SETTINGS}.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    return tmp_path


def start(suite: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start pytest in a directory, in an environment of its own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(OUTSIDE)}
    env |= {
        "TMPDIR": os.environ["TEST_SUITE_TMPDIR"],
        "USED": str(suite / "used"),
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    # Explicitly, because an environment that was installed by an earlier version has no entry point.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tenancy.testing.plugin"]
    return subprocess.Popen(
        [*command, *arguments], cwd=suite, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run(suite: Path, *arguments: str, **variables: str) -> str:
    """Run pytest in a directory, and return its output."""
    process = start(suite, *arguments, **variables)
    return process.communicate(timeout=200)[0]


def used(suite: Path) -> list[list[str]]:
    """Return the ids of the tenants that the tests have used, with the URL of the database."""
    return [line.split() for line in (suite / "used").read_text().splitlines()]


def check_nothing_left(temporary: Path) -> None:
    """Fail if a file or a server is left."""

    def left() -> list[str]:
        servers = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
        files = [str(each) for each in temporary.iterdir() if not each.name.startswith("pytest-of-")]  # its own
        return [*files, *(c[0] for c in servers if any(str(temporary) in a for a in c))]

    wait_until(lambda: left() == [], "everything is removed")


@pytest.mark.parametrize("arguments", [(), ("--tenancy-database", "sqlite"), ("-n", "2")])
def test_suite_of_a_service(suite: Path, temporary: Path, arguments: tuple[str, ...]) -> None:
    printed = run(suite, *arguments)
    assert "8 passed" in printed, printed
    lines = used(suite)
    assert len({tenant_id for tenant_id, _ in lines}) == 6
    urls = {url for _, url in lines}
    assert len(urls) == (2 if "-n" in arguments else 1)
    assert all(url.startswith("sqlite" if "sqlite" in arguments else "postgresql") for url in urls)
    if "-n" in arguments:
        assert len({sa.make_url(url).port for url in urls}) == 1, "the processes share one server"
    check_nothing_left(temporary)


def test_given_server(suite: Path, postgres_server: Postgres) -> None:
    printed = run(suite, TEST_POSTGRES_URL=postgres_server.url())
    assert "8 passed" in printed, printed
    engine = sa.create_engine(postgres_server.url())
    with engine.connect() as connection:
        names = connection.exec_driver_sql("SELECT datname FROM pg_database").scalars().all()
    engine.dispose()
    url = sa.make_url(used(suite)[0][1])
    assert url.port == sa.make_url(postgres_server.url()).port
    assert url.database not in names


def test_killed_session_leaves_nothing(suite: Path, temporary: Path) -> None:
    (suite / "test_service.py").write_text(
        "import os, signal\ndef test_death(tenant):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = start(suite)
    process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL
    check_nothing_left(temporary)


def test_variables_of_the_developer_lead_nowhere(suite: Path, sqlite_url: str) -> None:
    printed = run(suite, "--tenancy-database", "sqlite", SQLALCHEMY_URL=sqlite_url, TENANCY_CONTROL_URL=sqlite_url)
    assert "8 passed" in printed, printed
    assert not Path(sa.make_url(sqlite_url).database or "").exists()


def test_fleet_in_another_database_is_left_alone(suite: Path, sqlite_url: str) -> None:
    code = SERVICE.replace("tenants = Tenancy(", f'tenants = Tenancy(env={{"SQLALCHEMY_URL": "{sqlite_url}"}}, ')
    (suite / "service.py").write_text(code)
    printed = run(suite, "--tenancy-database", "sqlite")
    assert "is not in the throw-away database, so its tenants are left alone" in printed
    assert "8 errors" in printed, printed
    assert not Path(sa.make_url(sqlite_url).database or "").exists()


def test_fleet_of_a_fixture(suite: Path) -> None:
    (suite / "pytest.ini").write_text("[pytest]\ntenancy_database = sqlite\n")
    (suite / "service.py").write_text(SERVICE.partition("tenants =")[0] + "tenants = None\n")
    (suite / "conftest.py").write_text(
        "import pytest\nfrom service import *\n"
        'pytest_plugins = ["tenancy.testing.plugin"]\n'
        "@pytest.fixture(scope='session')\n"
        "def tenancy_app(tenancy_url):\n"
        "    system = System(pipes=[[Visits, Diary]])\n"
        "    with Tenancy(system=system, env={'SQLALCHEMY_URL': tenancy_url}) as tenants:\n"
        "        yield tenants\n"
    )
    printed = run(suite, "-k", "not purges", SQLALCHEMY_URL="sqlite:////nowhere/x.db")
    assert "7 passed" in printed, printed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("tenancy_app = service\n", "Name the fleet of the service: tenancy_app = module:tenants"),
        ("tenancy_app = service:tenants\ntenancy_database = oracle\n", "tenancy_database is 'oracle'"),
    ],
)
def test_wrong_settings(suite: Path, settings: str, message: str) -> None:
    (suite / "pytest.ini").write_text(f"[pytest]\n{settings}")
    assert message in run(suite)


def test_missing_extra_is_named(suite: Path) -> None:
    (suite / "psutil.py").write_text("raise ModuleNotFoundError\n")
    printed = run(suite, PYTHONPATH=f"{suite}{os.pathsep}{ROOT}")
    assert "No PostgreSQL found. Install eventsourcing-sqlalchemy[testing], or set TEST_POSTGRES_URL." in printed
    assert "8 passed" in run(suite, "--tenancy-database", "sqlite", PYTHONPATH=f"{suite}{os.pathsep}{ROOT}")


def test_suites_without_tenants_import_nothing(suite: Path) -> None:
    (suite / "pytest.ini").write_text("[pytest]\n")
    heavy = ("sqlalchemy", "eventsourcing", "psutil", "psycopg2", "tenancy.tenancy")
    (suite / "test_service.py").write_text(
        f"import sys\ndef test_imports():\n    assert not set(sys.modules) & {set(heavy)}\n"
    )
    printed = run(suite, "-p", "no:hypothesispytest")
    assert "1 passed" in printed, printed


def test_entry_point_has_the_name_of_the_module() -> None:
    """Otherwise a conftest.py that lists the plugin would register it a second time."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.entry-points.pytest11]\n")[2].partition("\n[")[0]
    assert '"tenancy.testing.plugin" = "tenancy.testing.plugin"' in section.splitlines()
