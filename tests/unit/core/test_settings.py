"""Environment variables: defaults, accepted values, and errors for other values."""

import traceback
from typing import Any, Final

import pytest
import sqlalchemy as sa
from eventsourcing.utils import Environment
from sqlalchemy.engine import make_url

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.engine_settings import DEFAULTS, EngineSettings
from eventsourcing_sqlalchemy.engines.engine import EngineSource
from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.settings import Settings, mask, parse_url

SECRET: Final = "s3cr3t"  # noqa: S105 (must not be in messages)


def read(name: str = "School", /, **variables: str) -> Settings:
    return Settings.read(Environment(name, variables))


def value_of(variable: str, value: str) -> Any:
    """Return the parsed value of a variable."""
    settings = read(**{variable: value})
    field = variable.removeprefix("SQLALCHEMY_").lower()
    return getattr(settings if hasattr(settings, field) else settings.engine, field)


# -- defaults and values --


def test_defaults() -> None:
    assert read() == Settings(
        application="School",
        url=None,
        schema=None,
        table_prefix="",
        autoflush=True,
        originator_id_type="uuid",
        scoped_session_topic=None,
        connection_creator_topic=None,
        engine_topic=None,
        engine=EngineSettings(),
    )
    assert Settings.read_create_table(Environment("School", {}))
    assert dict(DEFAULTS.asked()) == {
        "SQLALCHEMY_POOL_SIZE": 5,
        "SQLALCHEMY_MAX_OVERFLOW": 10,
        "SQLALCHEMY_POOL_TIMEOUT": 30.0,
        "SQLALCHEMY_POOL_RECYCLE": 1800.0,
        "SQLALCHEMY_POOL_PRE_PING": False,
        "SQLALCHEMY_CONNECT_TIMEOUT": 5.0,
        "SQLALCHEMY_LOCK_TIMEOUT": 5.0,
        "SQLALCHEMY_IDLE_IN_TRANSACTION_SESSION_TIMEOUT": 30.0,
        "SQLALCHEMY_COMMIT_RESOLVE_TIMEOUT": 10.0,
        "SQLALCHEMY_PREPARE_STATEMENTS": "auto",
        "SQLALCHEMY_SQLITE_SYNCHRONOUS": "FULL",
    }


VALUES: Final[list[tuple[str, str, Any]]] = [
    ("SQLALCHEMY_URL", "sqlite:///school.db", make_url("sqlite+pysqlite:///school.db")),
    ("SQLALCHEMY_URL", " sqlite:///school.db\n", make_url("sqlite+pysqlite:///school.db")),
    ("SQLALCHEMY_SCHEMA", "Acme Größe", "Acme Größe"),
    ("SQLALCHEMY_SCHEMA", "", None),
    ("SQLALCHEMY_SCHEMA", "acme_{application}", "acme_school"),
    ("SQLALCHEMY_TABLE_PREFIX", "acme_", "acme_"),
    ("SQLALCHEMY_TABLE_PREFIX", "", ""),
    ("SQLALCHEMY_TABLE_PREFIX", "{application}.{application}-", "school.school-"),
    ("SQLALCHEMY_AUTOFLUSH", "no", False),
    ("SQLALCHEMY_AUTOFLUSH", "TRUE", True),
    ("SQLALCHEMY_AUTOFLUSH", "", True),
    ("SQLALCHEMY_SCOPED_SESSION_TOPIC", " module:name ", "module:name"),
    ("SQLALCHEMY_CONNECTION_CREATOR_TOPIC", "module:name", "module:name"),
    ("SQLALCHEMY_ENGINE_TOPIC", "module:name", "module:name"),
    ("SQLALCHEMY_ENGINE_TOPIC", "", None),
    ("SQLALCHEMY_POOL_SIZE", "1", 1),
    ("SQLALCHEMY_POOL_SIZE", "", None),
    ("SQLALCHEMY_MAX_OVERFLOW", "0", 0),
    ("SQLALCHEMY_POOL_TIMEOUT", "0.5", 0.5),
    ("SQLALCHEMY_POOL_RECYCLE", "-1", -1.0),
    ("SQLALCHEMY_POOL_PRE_PING", "on", True),
    ("SQLALCHEMY_POOL_PRE_PING", "0", False),
    ("SQLALCHEMY_CONNECT_TIMEOUT", "3", 3.0),
    ("SQLALCHEMY_LOCK_TIMEOUT", "0", 0.0),
    ("SQLALCHEMY_IDLE_IN_TRANSACTION_SESSION_TIMEOUT", "1e2", 100.0),
    ("SQLALCHEMY_COMMIT_RESOLVE_TIMEOUT", "2.5", 2.5),
    ("SQLALCHEMY_PREPARE_STATEMENTS", "OFF", "off"),
    ("SQLALCHEMY_PREPARE_STATEMENTS", "auto", "auto"),
    ("SQLALCHEMY_LISTEN_URL", "postgresql+psycopg://host/db", make_url("postgresql+psycopg://host/db")),
    ("SQLALCHEMY_LISTEN_URL", "", None),
    ("SQLALCHEMY_SQLITE_SYNCHRONOUS", "normal", "NORMAL"),
    ("ORIGINATOR_ID_TYPE", "text", "text"),
    ("ORIGINATOR_ID_TYPE", "UUID", "uuid"),
]


@pytest.mark.parametrize(("variable", "value", "expected"), VALUES)
def test_value_is_parsed(variable: str, value: str, expected: Any) -> None:
    found = value_of(variable, value)
    assert found == expected
    assert type(found) is type(expected)


def test_every_variable_is_tested() -> None:
    """A new variable must be added above."""
    variables = {f"SQLALCHEMY_{name.upper()}" for name in EngineSettings.__slots__}
    variables |= {f"SQLALCHEMY_{name.upper()}" for name in Settings.__slots__}
    variables -= {"SQLALCHEMY_APPLICATION", "SQLALCHEMY_ENGINE", "SQLALCHEMY_ORIGINATOR_ID_TYPE"}
    assert variables | {"ORIGINATOR_ID_TYPE"} == {variable for variable, _, _ in VALUES}


@pytest.mark.parametrize(("value", "expected"), [("y", True), ("no", False), ("", True), ("off", False)])
def test_create_table_is_parsed(value: str, expected: bool) -> None:
    assert Settings.read_create_table(Environment("School", {"CREATE_TABLE": value})) is expected


# -- errors --

BOOLEAN: Final = "yes, no, true, false, on, off, 1 or 0"
MALFORMED: Final = [
    ("SQLALCHEMY_SCHEMA", "{tier}_x", "{application}"),
    ("SQLALCHEMY_SCHEMA", "a}b", "{application}"),
    ("SQLALCHEMY_SCHEMA", "{{application}}", "{application}"),
    ("SQLALCHEMY_SCHEMA", "{application", "{application}"),
    ("SQLALCHEMY_SCHEMA", "{Application}", "{application}"),
    ("SQLALCHEMY_SCHEMA", "{appl{application}ication}", "{application}"),
    ("SQLALCHEMY_TABLE_PREFIX", "{0}_", "{application}"),
    ("SQLALCHEMY_AUTOFLUSH", "perhaps", BOOLEAN),
    ("SQLALCHEMY_POOL_SIZE", "0", "a whole number, at least 1"),
    ("SQLALCHEMY_POOL_SIZE", "2.5", "a whole number, at least 1"),
    ("SQLALCHEMY_POOL_SIZE", "many", "a whole number, at least 1"),
    ("SQLALCHEMY_MAX_OVERFLOW", "-1", "a whole number, at least 0"),
    ("SQLALCHEMY_POOL_TIMEOUT", "-0.1", "a number of seconds, at least 0"),
    ("SQLALCHEMY_POOL_TIMEOUT", "nan", "a number of seconds, at least 0"),
    ("SQLALCHEMY_POOL_TIMEOUT", "inf", "a number of seconds, at least 0"),
    ("SQLALCHEMY_POOL_RECYCLE", "-2", "a number of seconds, at least -1"),
    ("SQLALCHEMY_POOL_PRE_PING", "2", BOOLEAN),
    ("SQLALCHEMY_CONNECT_TIMEOUT", "5s", "a number of seconds, at least 0"),
    ("SQLALCHEMY_LOCK_TIMEOUT", "none", "a number of seconds, at least 0"),
    ("SQLALCHEMY_IDLE_IN_TRANSACTION_SESSION_TIMEOUT", "1,5", "a number of seconds, at least 0"),
    ("SQLALCHEMY_COMMIT_RESOLVE_TIMEOUT", "-1", "a number of seconds, at least 0"),
    ("SQLALCHEMY_PREPARE_STATEMENTS", "sometimes", "auto, on or off"),
    ("SQLALCHEMY_SQLITE_SYNCHRONOUS", "OFF", "FULL or NORMAL"),
    ("ORIGINATOR_ID_TYPE", "int", "uuid or text"),
]


@pytest.mark.parametrize("prefix", ["", "SCHOOL_"])
@pytest.mark.parametrize(("variable", "value", "accepted"), MALFORMED)
def test_error_names_variable_value_application_and_accepted_form(
    prefix: str, variable: str, value: str, accepted: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        read(**{prefix + variable: value})
    message = str(raised.value)
    assert raised.value.variable == prefix + variable
    assert message.startswith(prefix + variable)
    assert repr(value) in message
    assert "'School'" in message
    assert accepted in message.replace(repr(value), "")


def test_error_of_create_table_names_it() -> None:
    with pytest.raises(SettingsError, match=f"^CREATE_TABLE is 'maybe'.*{BOOLEAN}"):
        Settings.read_create_table(Environment("School", {"CREATE_TABLE": "maybe"}))


def test_error_is_one_that_the_library_raises_for_its_own_variables() -> None:
    assert issubclass(SettingsError, EnvironmentError)


@pytest.mark.parametrize("variable", ["SQLALCHEMY_SCHEMA", "SQLALCHEMY_TABLE_PREFIX"])
def test_placeholder_needs_a_name(variable: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{variable}='x_\{{application\}}' needs an application name"):
        read("", **{variable: "x_{application}"})


@pytest.mark.parametrize("variable", ["SQLALCHEMY_URL", "SCHOOL_SQLALCHEMY_URL"])
def test_missing_or_empty_url_is_named_at_construction(variable: str) -> None:
    with pytest.raises(SettingsError, match=r"^SQLALCHEMY_URL is not set.*'School'.*sqlite:///"):
        SQLAlchemyFactory(Environment("School", {}))
    with pytest.raises(SettingsError, match=f"^{variable} is empty.*'School'.*sqlite:///"):
        SQLAlchemyFactory(Environment("School", {variable: "  "}))


# -- whose variable --


def test_variable_of_the_application_wins() -> None:
    settings = read(SQLALCHEMY_POOL_SIZE="3", SCHOOL_SQLALCHEMY_POOL_SIZE="4", SHOP_SQLALCHEMY_POOL_SIZE="5")
    assert settings.engine.pool_size == 4
    assert read("Shop", SQLALCHEMY_POOL_SIZE="3").engine.pool_size == 3


def test_empty_schema_overrides_the_shared_one() -> None:
    assert read(SQLALCHEMY_SCHEMA="all").schema == "all"
    assert read(SQLALCHEMY_SCHEMA="all", SCHOOL_SQLALCHEMY_SCHEMA="").schema is None
    assert read(SQLALCHEMY_TABLE_PREFIX="all_", SCHOOL_SQLALCHEMY_TABLE_PREFIX="").table_prefix == ""


def test_spaces_at_the_ends_are_part_of_a_name() -> None:
    assert read(SQLALCHEMY_SCHEMA=" x ").schema == " x "


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("acme-school", "ACME_SCHOOL_SQLALCHEMY_SCHEMA"),
        ("acme-school", "ACME-SCHOOL_SQLALCHEMY_SCHEMA"),
        ("Acme School.2", "ACME_SCHOOL_2_SQLALCHEMY_SCHEMA"),
        ("Schüler", "SCH_LER_SQLALCHEMY_SCHEMA"),
        ("Schüler", "SCHÜLER_SQLALCHEMY_SCHEMA"),
        ("x_1", "X_1_SQLALCHEMY_SCHEMA"),
    ],
)
def test_name_that_a_shell_cannot_export_is_looked_up_as_one_that_it_can(name: str, variable: str) -> None:
    assert read(name, **{variable: "mine", "SQLALCHEMY_SCHEMA": "all"}).schema == "mine"


def test_exact_name_wins_over_the_exportable_one() -> None:
    variables = {"ACME-SCHOOL_SQLALCHEMY_SCHEMA": "exact", "ACME_SCHOOL_SQLALCHEMY_SCHEMA": "exportable"}
    assert read("acme-school", **variables).schema == "exact"


def test_placeholder_is_the_name_used_in_table_names() -> None:
    assert read("Acme-Größe", SQLALCHEMY_SCHEMA="{application}_v1").schema == "acme-größe_v1"
    assert read("a{b}", SQLALCHEMY_SCHEMA="{application}").schema == "a{b}"


def test_applications_whose_variables_are_the_same_are_an_error() -> None:
    env = {"SQLALCHEMY_URL": "sqlite://"}
    first = SQLAlchemyFactory(Environment("acme-school", env))
    with pytest.raises(SettingsError, match=r"'acme-school' and 'acme\.school'.*ACME_SCHOOL_"):
        SQLAlchemyFactory(Environment("acme.school", env))
    first.close()


# -- URLs --


@pytest.mark.parametrize(
    ("value", "driver"),
    [
        ("postgresql://u@h/d", "postgresql+psycopg2"),
        ("postgres://u@h/d", "postgresql+psycopg2"),
        ("postgres+psycopg://u@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg2://u@h/d", "postgresql+psycopg2"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg"),
        ("postgresql+pg8000://u@h/d", "postgresql+pg8000"),
        ("sqlite://", "sqlite+pysqlite"),
        ("sqlite:///:memory:", "sqlite+pysqlite"),
        ("sqlite+pysqlite:///x.db", "sqlite+pysqlite"),
    ],
)
def test_driver_of_a_url(value: str, driver: str) -> None:
    url = parse_url(value)
    assert url.drivername == driver
    assert url.set(drivername="x") == make_url(value).set(drivername="x")


@pytest.mark.parametrize(
    "value", ["mysql://u:{}@h/d", "postgresql+asyncpg://u:{}@h/d", "sqlite+aiosqlite:///{}", "oracle://{}", "{}://h/d"]
)
def test_unsupported_database_is_refused_and_supported_ones_are_named(value: str) -> None:
    value = value.format(SECRET if not value.startswith("{") else "nosuch")
    with pytest.raises(SettingsError, match=r"SQLALCHEMY_URL.*'School'") as raised:
        read(SQLALCHEMY_URL=value)
    message = str(raised.value)
    assert value.partition(":")[0] in message
    for name in ("postgresql", "psycopg2", "psycopg", "pg8000", "sqlite"):
        assert name in message
    assert SECRET not in message


@pytest.mark.parametrize("value", ["{}", "://{}", "postgresql//u:{}@h/d", "postgresql://u:{}@h:port/d", "sqlite:/{}"])
@pytest.mark.parametrize("variable", ["SQLALCHEMY_URL", "SQLALCHEMY_LISTEN_URL"])
def test_malformed_url_is_named_and_not_shown(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}.*'School'.*postgresql://.*sqlite:///") as raised:
        read(**{variable: value.format(SECRET)})
    assert SECRET not in "".join(traceback.format_exception(raised.value))


# -- several hosts --


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
@pytest.mark.parametrize(
    ("hosts", "ports"),
    [
        ("host=a:1&host=b.c-d:2", "1,2"),
        ("host=a:1,b.c-d:2", "1,2"),
        ("host=a,b.c-d&port=1,2", "1,2"),
        ("host=a:1,b.c-d", "1,"),
    ],
)
def test_each_host_of_several_reaches_the_driver_with_its_port(driver: str, hosts: str, ports: str) -> None:
    url = parse_url(f"postgresql+{driver}://user@/db?{hosts}&target_session_attrs=read-write")
    for each in (url, parse_url(url.render_as_string())):
        _, arguments = sa.create_engine(each).dialect.create_connect_args(each)
        assert (arguments["host"], arguments["port"]) == ("a,b.c-d", ports)
        assert arguments["target_session_attrs"] == "read-write"
        assert "a" in mask(each)
        assert "b.c-d" in mask(each)


@pytest.mark.parametrize("query", ["host=a:1&host=b:2", "host=a,b&port=1,2", "target_session_attrs=read-write"])
def test_driver_of_one_host_refuses_several(query: str) -> None:
    with pytest.raises(SettingsError, match=r"SQLALCHEMY_URL .*\(application 'School'\).*pg8000.*psycopg2 or psycopg"):
        read(SQLALCHEMY_URL=f"postgresql+pg8000://user@/db?{query}")
    assert read(SQLALCHEMY_URL="postgresql+pg8000://user@/db?host=a&port=1").url is not None


def test_a_single_host_may_require_writes() -> None:
    url = parse_url("postgresql://user@a:1/db?target_session_attrs=read-write")
    _, arguments = sa.create_engine(url).dialect.create_connect_args(url)
    assert (arguments["host"], arguments["port"]) == ("a", 1)


# -- secrets --

SECRET_URLS: Final = [
    f"postgresql://user:{SECRET}@127.0.0.1:1/db",
    f"postgresql://user@127.0.0.1:1/db?password={SECRET}",
    f"postgresql+psycopg://user:{SECRET}@127.0.0.1:1/db?sslpassword={SECRET}&options=-c%20x%3D{SECRET}",
    f"postgresql+pg8000://user:{SECRET}@127.0.0.1:1/db",
]


@pytest.mark.parametrize("value", SECRET_URLS)
def test_secrets_are_in_no_repr(value: str) -> None:
    settings = read(SQLALCHEMY_URL=value, SQLALCHEMY_LISTEN_URL=value)
    assert settings.url is not None
    assert SECRET in settings.url.render_as_string(hide_password=False)
    source = EngineSource(url=settings.url, options=(("connect_args", {"password": SECRET}),))
    datastore = SQLAlchemyDatastore(url=settings.url, settings=settings.engine)
    try:
        for thing in (settings, settings.engine, source, datastore, datastore.shared):
            assert SECRET not in repr(thing)
            assert SECRET not in str(thing)
    finally:
        datastore.close()


@pytest.mark.parametrize("value", SECRET_URLS)
def test_secrets_are_in_no_masked_url(value: str) -> None:
    masked = mask(parse_url(value))
    assert SECRET not in masked
    assert "127.0.0.1" in masked


@pytest.mark.parametrize("value", SECRET_URLS)
def test_secrets_are_not_in_the_error_for_an_unreachable_server(value: str) -> None:
    factory = SQLAlchemyFactory(Environment("School", {"SQLALCHEMY_URL": value, "SQLALCHEMY_SCHEMA": "school"}))
    with pytest.raises(Exception, match=r"127\.0\.0\.1") as raised:
        factory.application_recorder()
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    factory.close()


def test_secrets_are_not_in_the_error_for_conflicting_settings(sqlite_url: str) -> None:
    def settings(number: int) -> EngineSettings:
        url = f"postgresql://user{number}:{SECRET}@host/db?password={SECRET}"
        return read(SQLALCHEMY_LISTEN_URL=url).engine

    datastore = SQLAlchemyDatastore(url=sqlite_url, settings=settings(1), application="North")
    with pytest.raises(SettingsError, match=r"'South'.*SQLALCHEMY_LISTEN_URL.*user2.*'North'.*user1") as raised:
        SQLAlchemyDatastore(url=sqlite_url, settings=settings(2), application="South")
    assert SECRET not in str(raised.value)
    datastore.close()
