"""While versions differ: tenants that lack what the code needs are refused, and the others serve."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.errors import InvalidArgument, TenancyError, TenantOutdated, TenantUnavailable
from tenancy.model.tenant import Action
from tenancy.registry import Registry
from tenancy.web.responses import error_response, is_refusal
from tests.integration.tenancy.migrations.conftest import NO_NUMBERS, NUMBERS
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import SYSTEM, Diaries
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.deadlines import wait_until
from tests.support.fleets import check
from tests.support.revisions import Revisions, migrate


def newer(tenants: Tenancy, revisions: Revisions, **options: Any) -> Tenancy:
    """Return the fleet of code that brings the revision b2."""
    revisions.add("b2", "a1", NUMBERS, NO_NUMBERS)
    fleet = Tenancy(system=SYSTEM, env=dict(tenants.settings.given), migrations=revisions.path, **options)
    fleet.project(TrainingSchool, DogCounters, CountersView)
    return fleet


def test_a_tenant_behind_is_refused_and_the_others_serve(tenants: Tenancy, revisions: Revisions) -> None:
    with newer(tenants, revisions, requires="b2") as new:
        old, acme = tenants["acme"].get(TrainingSchool), new["acme"]
        migrate(new, "globex")
        new["globex"].get(TrainingSchool).register("Rex")
        for call in (
            lambda: acme.get(TrainingSchool),
            lambda: new.scope(acme),
            lambda: new.projection(DogCounters, acme),
        ):
            with pytest.raises(TenantOutdated, match="tenancy migrate acme") as caught:
                call()
            assert caught.value.tenant == "acme"
            assert "globex" not in str(caught.value)
        old.register("Fido")  # the older code
        migrate(new)
        assert acme.get(TrainingSchool).register("Fido")


def test_objects_that_were_handed_out_are_refused_after_a_downgrade(tenants: Tenancy, revisions: Revisions) -> None:
    with newer(tenants, revisions, requires="b2") as new:
        migrate(new)
        school = new["acme"].get(TrainingSchool)
        dog_id = school.register("Fido")
        migrate(new, "acme", target="a1")
        with pytest.raises(TenantOutdated):
            school.teach(dog_id, "sit")
        migrate(new, "acme")
        school.teach(dog_id, "sit")


def test_each_application_has_its_own_requirement(tenants: Tenancy, revisions: Revisions) -> None:
    with newer(tenants, revisions, requires={TrainingSchool: "b2", DogCounters: "b2"}) as new:
        acme = new["acme"]
        with new.scope(acme):
            assert new.application(Diaries).name == "Diaries"
            for call in (lambda: new.application(TrainingSchool), lambda: new.projection(DogCounters)):
                with pytest.raises(TenantOutdated):
                    call()
        # The variables carry it to other processes, whatever code constructs the application there.
        env = acme.env()
        school = TrainingSchool(env=env)
        with pytest.raises(TenantOutdated):
            school.register("Fido")
        school.close()
        Diaries(env=env).close()
        migrate(new)
        assert acme.get(TrainingSchool).register("Fido")


def test_a_newer_tenant_is_served(tenants: Tenancy, revisions: Revisions) -> None:
    with newer(tenants, revisions, requires="b2") as new:
        migrate(new)
    revisions.remove("b2")
    with Tenancy(system=SYSTEM, env=dict(tenants.settings.given), migrations=revisions.path, requires="a1") as old:
        assert old["acme"].get(TrainingSchool).register("Fido")


def test_an_unknown_requirement_is_a_mistake_of_the_code(tenants: Tenancy, revisions: Revisions) -> None:
    with newer(tenants, revisions, requires="zz") as new, pytest.raises(TenancyError, match="zz"):
        new["acme"].get(TrainingSchool)
    with pytest.raises(InvalidArgument):
        newer(tenants, revisions, requires=["b2"])


def test_another_process_notices_the_migration(tenants: Tenancy, revisions: Revisions) -> None:
    with newer(tenants, revisions, requires="b2") as new:
        acme = new["acme"]
        with pytest.raises(TenantOutdated):
            acme.get(TrainingSchool)
        elsewhere = Registry(new.settings)
        with elsewhere.locked([acme.id]) as (session, current):
            versions = replace(current[0].versions, migrations=("b2",))
            elsewhere.change(session, current, Action.MIGRATE, None, versions=versions)
        elsewhere.close()

        def serves() -> bool:
            try:
                acme.get(TrainingSchool)
            except TenantOutdated:
                return False
            return True

        wait_until(serves, "the cache has read the change")


@pytest.mark.parametrize("env", ["schema"], indirect=True)
def test_admission_asks_the_database_for_nothing(tenants: Tenancy, revisions: Revisions) -> None:
    with newer(tenants, revisions, requires="b2") as new:
        migrate(new)
        acme = new["acme"]
        acme.get(TrainingSchool)
        statements: list[str] = []
        engine = new.fleet.registry.datastore.engine

        @sa.event.listens_for(engine, "before_cursor_execute")
        def count(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            statements.append(statement)

        new.fleet.registry_cache.refresh()
        statements.clear()
        for _ in range(100):
            new.fleet.check_revision(acme)
        sa.event.remove(engine, "before_cursor_execute", count)
        assert statements == []


def test_a_web_client_is_asked_to_retry() -> None:
    answer = error_response(TenantOutdated("Tenant 'acme' lacks a revision.", tenant="acme"))
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "acme" not in answer.body
    assert issubclass(TenantOutdated, TenantUnavailable)
    assert is_refusal(TenantOutdated("The tenant is outdated."))


def test_the_runner_waits_for_the_migration(tenants: Tenancy, revisions: Revisions) -> None:
    with newer(tenants, revisions, requires="b2") as new:
        for slug in ("acme", "globex"):
            new.create_missing(slug)
        migrate(new, "globex")
        dog_id = tenants["acme"].get(TrainingSchool).register("Fido", "sit")
        rex = new["globex"].get(TrainingSchool).register("Rex")
        with new.runner(workers=2) as runner:
            runner.wait("globex")
            check(new, "globex", {rex: ["Rex"]})
            assert all(each.state != "quarantined" for each in runner.status())
            migrate(new, "acme")
            runner.wait("acme")
            check(new, "acme", {dog_id: ["Fido", "sit"]})


@pytest.mark.parametrize("env", ["sqlite"], indirect=True)
def test_without_alembic_it_says_what_to_install(
    tenants: Tenancy, monkeypatch: pytest.MonkeyPatch, revisions: Revisions
) -> None:
    revisions.add("b2", "a1", NUMBERS)
    monkeypatch.setitem(sys.modules, "alembic.util", None)
    with pytest.raises(TenancyError, match=r"eventsourcing-sqlalchemy\[migrations\]"):
        tenants.create("third")
