"""Database roles as granted in docs/roles.md: the owner creates tenants, the application works in them, the report
reads.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError
from eventsourcing.system import SingleThreadedRunner

from tenancy import Tenancy
from tenancy.errors import NotCaughtUp, TenantSuspended
from tenancy.testing.postgresql import Postgres
from tests.samples.kennels import SYSTEM, Kennel, Visits
from tests.support import catalog
from tests.support.administrator import Database
from tests.support.deadlines import DEADLINE_SECONDS, wait_until

PAGE = (Path(__file__).parents[4] / "docs" / "roles.md").read_text(encoding="utf-8")
ONCE, AFTER_INIT, FOR_RUNNER, _FOR_USAGE, FOR_EARLIER = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
PASSWORD = "secret"  # noqa: S105 (of temporary roles)
DENIED = "permission denied"


class Roles:
    """The three roles in a database, with the page's statements and unique names."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._suffix = secrets.token_hex(4)
        self._resources = ExitStack()

    def text(self, block: str) -> str:
        """Return a block of the page."""
        named = re.sub(r"shop_(owner|app|report)", rf"shop_\1_{self._suffix}", block)
        return named.replace("DATABASE shop ", f"DATABASE {self._database.name} ")

    def run(self, block: str, role: str | None = None) -> None:
        """Run a block as a role, or as the administrator."""
        engine = self._database.engine if role is None else sa.create_engine(self.url(role))
        with engine.connect() as connection:
            connection.exec_driver_sql(self.text(block), execution_options={"no_parameters": True})
            connection.commit()
        engine.dispose()

    def url(self, role: str) -> str:
        """Return the URL of the database for a role."""
        url = sa.make_url(self._database.url()).set(username=f"shop_{role}_{self._suffix}", password=PASSWORD)
        return url.render_as_string(hide_password=False)

    def tenants(self, role: str) -> Tenancy:
        """Return the fleet of a process that connects as a role."""
        return self._resources.enter_context(Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": self.url(role)}))

    def make(self) -> None:
        """Create the roles as on the page."""
        self.run(ONCE)
        self.run("".join(f"ALTER ROLE shop_{role} PASSWORD '{PASSWORD}';" for role in ("owner", "app", "report")))

    def remove(self) -> None:
        """Close all processes, and remove the roles."""
        self._resources.close()
        for role in ("owner", "app", "report"):
            self.run(f"DROP OWNED BY shop_{role} CASCADE; DROP ROLE shop_{role}")


@pytest.fixture
def roles(postgres_server: Postgres, postgres_database: str) -> Iterator[Roles]:
    found = Roles(Database(postgres_server, postgres_database))
    found.make()
    yield found
    found.remove()


def is_denied(call: Callable[[], object]) -> None:
    with pytest.raises(ProgrammingError, match=DENIED):
        call()


@pytest.mark.usefixtures("no_purge_delay")
def test_each_role_does_what_it_may(roles: Roles, postgres_url: str) -> None:
    owner = roles.tenants("owner")
    owner.init()
    roles.run(AFTER_INIT, "owner")
    # Created after the rights were granted.
    env = owner.create("acme").env()
    app, report = roles.tenants("app"), roles.tenants("report")
    kennel, reader = app["acme"].get(Kennel), report["acme"].get(Kennel)
    dog = kennel.register("Fido")
    kennel.take_snapshot(dog)
    assert reader.names() == ["Fido"]
    assert reader.repository.get(dog).name == "Fido"
    is_denied(lambda: reader.register("Rex"))
    with SingleThreadedRunner[UUID](SYSTEM, env={**env, **app["acme"].env()}) as runner:
        runner.get(Kennel).register("Rex")
        assert runner.get(Visits).recorder.max_tracking_id("Kennel") == 2
    before = catalog.objects(postgres_url)
    for tenants in (app, report):
        is_denied(lambda tenants=tenants: tenants.create("globex"))  # type: ignore[misc]
        is_denied(lambda tenants=tenants: list(tenants.create_many(["globex"])))  # type: ignore[misc]
        is_denied(lambda tenants=tenants: tenants.suspend("acme"))  # type: ignore[misc]
        is_denied(lambda tenants=tenants: tenants.rename("acme", "globex"))  # type: ignore[misc]
        is_denied(lambda tenants=tenants: tenants.purge("acme"))  # type: ignore[misc]
    assert owner.slugs() == ["acme"]
    assert owner["acme"].status == "active"
    assert catalog.objects(postgres_url) == before
    owner.suspend("acme", reads=True)
    wait_until(lambda: app["acme"].status == report["acme"].status == "suspended", "all processes have noticed it")
    for application in (kennel, reader):
        with pytest.raises(TenantSuspended):
            application.register("Rex")
        assert application.names() == ["Fido", "Rex"]
    owner.purge("acme")
    assert catalog.tenants(postgres_url) == set()


def test_runner_works_as_the_application_and_skips_as_the_owner(roles: Roles) -> None:
    owner = roles.tenants("owner")
    owner.init()
    roles.run(AFTER_INIT, "owner")
    kennel, app = owner.create("acme").get(Kennel), roles.tenants("app")
    kennel.register("Fido")
    is_denied(lambda: app.runner(workers=1).start())
    roles.run(FOR_RUNNER, "owner")
    with mock.patch.object(Visits, "policy", side_effect=ValueError), app.runner(workers=1, max_attempts=1) as runner:
        with pytest.raises(NotCaughtUp):
            runner.wait("acme", DEADLINE_SECONDS)
        is_denied(lambda: app.followers.skip("acme", "Visits", 1))
    owner.followers.skip("acme", "Visits", 1)
    kennel.register("Rex")
    with app.runner(workers=1) as runner:
        runner.wait("acme", DEADLINE_SECONDS)
    assert app["acme"].get(Visits).recorder.max_tracking_id("Kennel") == 2
    is_denied(lambda: app.suspend("acme"))


def test_tenants_older_than_the_roles(roles: Roles) -> None:
    defaults = "\n".join(line for line in ONCE.splitlines() if line.startswith("ALTER DEFAULT"))
    roles.run(re.sub(r"\bGRANT (.*) TO", r"REVOKE \1 FROM", defaults))
    owner = roles.tenants("owner")
    owner.create("acme")
    is_denied(lambda: roles.tenants("app").list())
    to_read = "GRANT USAGE ON SCHEMA tenancy TO shop_app; GRANT SELECT ON ALL TABLES IN SCHEMA tenancy TO shop_app"
    roles.run(to_read, "owner")
    kennel = roles.tenants("app")["acme"].get(Kennel)
    is_denied(lambda: kennel.register("Fido"))
    roles.run(FOR_EARLIER, "owner")
    kennel.register("Fido")
    assert kennel.names() == ["Fido"]


def test_role_without_rights_gets_the_grant(roles: Roles) -> None:
    calls: list[Callable[[Tenancy], Any]] = [lambda tenants: tenants.init(), lambda tenants: tenants.create("acme")]
    for call in calls:
        with pytest.raises(ProgrammingError, match=r"may not create schema 'tenancy'.*GRANT CREATE ON DATABASE"):
            call(roles.tenants("app"))
