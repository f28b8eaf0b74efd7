"""The variables of tenancy: defaults, errors that name the variable, and hidden secrets."""

from __future__ import annotations

import pytest

from eventsourcing_sqlalchemy.errors import SettingsError
from tenancy.model.slugs import RESERVED
from tenancy.settings import VARIABLES, TenancySettings

URL = "postgresql://user:s3cret@host/db?sslpassword=s3cret"


def read(**variables: str) -> TenancySettings:
    return TenancySettings.read({"SQLALCHEMY_URL": URL, **variables})


def test_defaults() -> None:
    settings = read()
    assert settings.control_url == settings.url
    assert settings.control_schema == "tenancy"
    assert (settings.schema, settings.table_prefix) == ("{tenant}", "")
    assert settings.slugs == "any"
    assert settings.reserved_slugs == RESERVED
    assert settings.grace_days == 30
    assert settings.max_applications == 1000
    assert settings.max_outage == 30
    assert settings.creator_topic is None


def test_defaults_without_schemas() -> None:
    settings = TenancySettings.read({"SQLALCHEMY_URL": "sqlite:///fleet.db"})
    assert (settings.schema, settings.table_prefix) == (None, "{tenant}_")


def test_every_variable_is_read() -> None:
    settings = read(
        TENANCY_APP="module:tenants",
        TENANCY_CONTROL_URL="sqlite:///control.db",
        TENANCY_CONTROL_SCHEMA=" control ",
        TENANCY_SCHEMA="{tenant}_{application}",
        TENANCY_TABLE_PREFIX="x_{tenant}_",
        TENANCY_SLUGS="DNS",
        TENANCY_RESERVED_SLUGS="shop",
        TENANCY_GRACE_DAYS="0.5",
        TENANCY_MAX_APPLICATIONS="7",
        TENANCY_MAX_OUTAGE="0",
        TENANCY_TENANT="00000000-0000-0000-0000-000000000000",
    )
    assert settings.control_url.database == "control.db"
    assert not settings.control_has_schemas
    assert settings.control_schema == "control"
    assert (settings.schema, settings.table_prefix) == ("{tenant}_{application}", "x_{tenant}_")
    assert (settings.slugs, settings.grace_days, settings.max_applications, settings.max_outage) == ("dns", 0.5, 7, 0)


def test_environment_of_the_process_comes_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANCY_GRACE_DAYS", "5")
    monkeypatch.setenv("TENANCY_SLUGS", "any")
    settings = read(TENANCY_SLUGS="dns")
    assert (settings.grace_days, settings.slugs) == (5, "dns")


@pytest.mark.parametrize(
    ("variable", "value", "accepted"),
    [
        ("TENANCY_SLUGS", "host", "any or dns"),
        ("TENANCY_GRACE_DAYS", "a month", "from 0 to 36525"),
        ("TENANCY_GRACE_DAYS", "-1", "a number of days from 0 to 36525"),
        ("TENANCY_GRACE_DAYS", "nan", "from 0 to 36525"),
        ("TENANCY_GRACE_DAYS", "1e12", "from 0 to 36525"),
        ("TENANCY_MAX_APPLICATIONS", "0", "a whole number from 1"),
        ("TENANCY_MAX_APPLICATIONS", "1.5", "a whole number from 1"),
        ("TENANCY_MAX_OUTAGE", "inf", "a number of seconds from 0"),
        ("TENANCY_CONTROL_SCHEMA", "{application}", "without braces"),
        ("TENANCY_CONTROL_SCHEMA", "x" * 64, "at most 63 bytes"),
        ("TENANCY_CONTROL_SCHEMA", "pg_control", "begin with pg_"),
        ("TENANCY_CONTROL_URL", "not a url", "The form is"),
        ("TENANCY_CONTROL_URL", "mysql://user@host/db", "Use one of"),
        ("TENANCY_CONTROL_URL", "sqlite://", "TENANCY_CONTROL_URL=sqlite:///fleet.db"),
        ("SQLALCHEMY_URL", "sqlite://", "SQLALCHEMY_URL=sqlite:///fleet.db"),
        ("SQLALCHEMY_URL", "sqlite:///:memory:", "SQLALCHEMY_URL=sqlite:///fleet.db"),
        ("SQLALCHEMY_URL", "sqlite:///file:x?mode=memory&cache=shared&uri=true", "Use a file"),
        ("SQLALCHEMY_URL", "", "e.g. SQLALCHEMY_URL="),
        ("TENANCY_SCHEMA", "shared", "{tenant}"),
        ("TENANCY_SCHEMA", "{tenant}_{role}", "{tenant} and {application}"),
        ("TENANCY_SCHEMA", "{tenant}}", "{tenant} and {application}"),
        ("TENANCY_SCHEMA", "pg_{tenant}", "Choose another name"),
        ("TENANCY_SCHEMA", "{application}{tenant}", "an underscore before {tenant}"),
        ("TENANCY_TABLE_PREFIX", "{application}x{tenant}_", "an underscore before {tenant}"),
        ("TENANCY_TABLE_PREFIX", "x_", "{tenant}"),
    ],
)
def test_bad_value_is_named_with_the_accepted_form(variable: str, value: str, accepted: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**{variable: value})
    assert caught.value.variable == variable
    assert variable in str(caught.value)
    assert accepted in str(caught.value)


def test_schema_without_schemas_is_refused() -> None:
    with pytest.raises(SettingsError, match="TENANCY_TABLE_PREFIX instead"):
        TenancySettings.read({"SQLALCHEMY_URL": "sqlite:///fleet.db", "TENANCY_SCHEMA": "{tenant}"})


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("TENANCY_SLUG", "TENANCY_SLUGS"),
        ("TENANCY_SHEMA", "TENANCY_SCHEMA"),
        ("TENANCY_CONTROL_URI", "TENANCY_CONTROL_URL"),
        ("TENANCY_CONTROLURL", "TENANCY_CONTROL_URL"),
        ("TENANCY_GRACE_DAY", "TENANCY_GRACE_DAYS"),
        ("TENANCY_MAX_OUTTAGE", "TENANCY_MAX_OUTAGE"),
        ("TENANCY_MAX_APPLICATION", "TENANCY_MAX_APPLICATIONS"),
        ("TENANCY_TABLE_PREFFIX", "TENANCY_TABLE_PREFIX"),
        ("TENANCY_TENANTS", "TENANCY_TENANT"),
        ("TENANCYSLUGS", "TENANCY_SLUGS"),
    ],
)
def test_typo_is_refused_with_a_suggestion(typo: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=rf"{typo} is set.*Did you mean {meant}\?") as caught:
        read(**{typo: "s3cret"})
    assert caught.value.variable == typo
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "variable",
    [
        "TENANCY_PORT",
        "TENANCY_PORT_8000_TCP",
        "TENANCY_PORT_8000_TCP_ADDR",
        "TENANCY_SERVICE_HOST",
        "TENANCY_SERVICE_PORT",
        "TENANCY_SERVICE_PORT_HTTP",
        "TENANCY_APP_PORT",
        "TENANCY_APP_SERVICE_HOST",
        "TENANCY_CONTROL_PORT",
        "TENANCY_NAME",
        "TENANCY_1_PORT",
        "TENANCY_VERSION",
        "TENANT_SCHEMA",
        *VARIABLES,
    ],
)
def test_variables_of_platforms_are_accepted(variable: str) -> None:
    known = {"TENANCY_SLUGS": "any", "TENANCY_CONTROL_URL": URL, "TENANCY_SCHEMA": "{tenant}"}
    known |= {"TENANCY_TABLE_PREFIX": "{tenant}"}
    beside = {"TENANCY_MIGRATIONS": "migrations"} if variable == "TENANCY_REQUIRES" else {}
    read(**beside, **{variable: known.get(variable, "1")})


@pytest.mark.parametrize("variable", ["TENANCY_REQUIRES", "KENNELS_TENANCY_REQUIRES"])
def test_a_required_revision_needs_the_directory_that_has_it(variable: str) -> None:
    with pytest.raises(SettingsError, match="TENANCY_MIGRATIONS") as caught:
        read(**{variable: "ae10"})
    assert caught.value.variable == variable


def test_secrets_do_not_show() -> None:
    settings = read(TENANCY_CONTROL_URL=URL)
    assert "s3cret" in settings.url.render_as_string(hide_password=False)
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


@pytest.mark.parametrize("value", ["postgres//user:s3cret@host", "mysql://user:s3cret@host/db", "s3cret"])
@pytest.mark.parametrize("variable", ["SQLALCHEMY_URL", "TENANCY_CONTROL_URL"])
def test_secrets_of_a_bad_url_do_not_show(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**{variable: value})
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in repr(error)
        error = error.__cause__ or error.__context__


def test_a_slug_that_cannot_be_reserved_is_named() -> None:
    with pytest.raises(SettingsError, match=r"TENANCY_RESERVED_SLUGS: The slug 'a/b' has a slash"):
        read(TENANCY_RESERVED_SLUGS="default,a/b")
    with pytest.raises(SettingsError, match="is empty"):
        read(TENANCY_RESERVED_SLUGS="www,,api")
