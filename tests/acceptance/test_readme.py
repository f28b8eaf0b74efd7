"""README.md and docs/: every block is run, and documented settings, files and commands are compared with the code."""

from __future__ import annotations

import ast
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from eventsourcing.utils import Environment
from sqlalchemy import make_url

from eventsourcing_sqlalchemy.engine_settings import DEFAULTS
from eventsourcing_sqlalchemy.engines.references import engines
from eventsourcing_sqlalchemy.settings import Settings
from tenancy.registry.cache import registry_caches
from tenancy.settings import VARIABLES, TenancySettings
from tenancy.testing.postgresql import Postgres
from tests.acceptance import cloud_sql, pages
from tests.acceptance.pages import LANGUAGES, PAGES, ROOT, Reader, blocks_of, commands_of, documented_files
from tests.support.django_settings import unconfigured_django
from tests.support.pgbouncer import PgBouncer

# In the pages, this is the reader's database, perhaps behind PgBouncer, as the superuser or as another role.
DATABASE = re.compile(r"(\w+)(?::(\w+))?@127\.0\.0\.1(:6432)?/school")
ROLE = re.compile(r"CREATE ROLE (\w+)")


@pytest.fixture(scope="session")
def _files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make the files of the pages importable."""
    with documented_files(tmp_path_factory.mktemp("documented")):
        yield


@pytest.fixture
def _restored() -> Iterator[None]:
    """Undo a page's changes to the environment, and fail if it leaves a process or an engine in use."""
    before = dict(os.environ)
    processes = psutil.Process().children()
    with unconfigured_django():
        yield
    left = [process for process in psutil.Process().children() if process not in processes]
    for process in left:
        process.kill()
    assert left == []
    os.environ.clear()
    os.environ.update(before)
    gc.collect()
    registry_caches.drain()
    engines.drain()
    assert [str(shared) for shared in engines] == []


class Databases:
    """The database that replaces the one in the pages, directly and through PgBouncer."""

    def __init__(self, server: Postgres, database: str, pgbouncer: Callable[[], PgBouncer]) -> None:
        self.url = make_url(server.url(database))
        self._pgbouncer = pgbouncer
        self._roles: list[str] = []

    def replace(self, text: str) -> str:
        """Substitute the test database in a block."""
        return DATABASE.sub(self._replace, text)

    def _replace(self, found: re.Match[str]) -> str:
        user, password, port = found.groups()
        url = make_url(self._pgbouncer().url(self.url.database)) if port else self.url
        if user != "postgres":
            url = url.set(username=user, password=password)
        return url.set(drivername="postgresql").render_as_string(hide_password=False).removeprefix("postgresql://")

    def run_sql(self, script: str) -> None:
        """Run the statements of a block."""
        self._roles += ROLE.findall(script)
        self._run(script)

    def _run(self, script: str) -> None:
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(script)
        finally:
            engine.dispose()

    def drop_roles(self) -> None:
        """Remove a page's roles, which are outside its database."""
        for role in self._roles:
            self._run(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.fixture
def databases(request: pytest.FixtureRequest, postgres_server: Postgres, postgres_database: str) -> Iterator[Databases]:
    """The databases for one page; PgBouncer is started for pages that use it."""
    databases = Databases(postgres_server, postgres_database, lambda: request.getfixturevalue("pgbouncer"))
    yield databases
    databases.drop_roles()


@pytest.mark.timeout(900)  # pages start processes
@pytest.mark.usefixtures("_files", "_restored")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.name)
def test_a_page_works_as_written(
    page: Path, databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "google.cloud" in page.read_text(encoding="utf-8"):
        for name, module in cloud_sql.connector_modules(databases.url).items():
            monkeypatch.setitem(sys.modules, name, module)
    Reader(page, databases.replace, databases.run_sql).read(blocks_of(page))


# -- contents of the pages --

PAGES_AND_BLOCKS = [(page, blocks_of(page)) for page in PAGES]

# Blocks that no test runs, with the reason given before each; aim for none.
# Roles belong to the whole server: tests/integration/tenancy/lifecycle/test_roles.py runs these with its own roles.
NOT_RUN = [
    "docs/roles.md:15",
    "docs/roles.md:35",
    "docs/roles.md:47",
    "docs/roles.md:58",
    "docs/roles.md:66",
    "docs/running.md:132",
]

# Commands in shell blocks that are neither run nor checked.
COMMANDS_NOT_RUN = [
    ["pip", "install", what]
    for what in (".", ".[psycopg]", ".[cli]", ".[metrics]", ".[tracing]", ".[domains]", ".[migrations]", ".[testing]")
]


def test_every_block_is_run() -> None:
    assert [str(block) for _, blocks in PAGES_AND_BLOCKS for block in blocks if not block.is_run] == NOT_RUN


def test_every_block_is_of_a_known_kind() -> None:
    unknown = [str(block) for _, blocks in PAGES_AND_BLOCKS for block in blocks if block.language not in LANGUAGES]
    assert unknown == []


def test_every_output_follows_the_code_that_prints_it() -> None:
    for _, blocks in PAGES_AND_BLOCKS:
        for before, block in zip([None, *blocks], blocks, strict=False):
            if block.language == "text":
                assert before is not None, block
                assert before.language in ("python", "shell"), block
                assert before.file is None, block


def test_every_command_is_run_or_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for _, blocks in PAGES_AND_BLOCKS:
        for block in blocks:
            if block.language == "shell":
                for command in commands_of(block.source):
                    if command[0] == "make":
                        assert set(command[1:]) <= targets, block
                    elif command[0] not in ("export", "unset", "pytest", "tenancy"):
                        assert command in COMMANDS_NOT_RUN, block


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file), target


def test_the_readme_links_to_every_page() -> None:
    targets = set(re.findall(r"\]\(([^)#\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    pages = {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")}
    assert pages - targets == set()


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub creates for a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- settings --

SETTINGS_PAGE = ROOT / "docs" / "settings.md"
VARIABLE = re.compile(r"[A-Z]+(?:_[A-Z]+)+")


def variables_in_code(source: str) -> set[str]:
    """Return all constants and attributes in the code that are named like environment variables."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    names += [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    return {name for name in names if VARIABLE.fullmatch(name)}


def variables_in_page(page: str) -> dict[str, str]:
    """Return the variables in a page's tables, with their defaults."""
    return dict(re.findall(r"^\| `([A-Z_]+)` \| `?([^|`]+?)`? \|", page, re.MULTILINE))


def defaults() -> dict[str, str]:
    """Return the default of every variable, as the page writes it."""
    env = Environment("", {})
    settings = Settings.read(env)
    values: dict[str, object] = {
        f"SQLALCHEMY_{field.name.upper()}": getattr(DEFAULTS, field.name) for field in fields(DEFAULTS)
    }
    values |= {
        "SQLALCHEMY_URL": settings.url,
        "SQLALCHEMY_SCHEMA": settings.schema,
        "SQLALCHEMY_TABLE_PREFIX": settings.table_prefix,
        "SQLALCHEMY_AUTOFLUSH": settings.autoflush,
        "SQLALCHEMY_SCOPED_SESSION_TOPIC": settings.scoped_session_topic,
        "SQLALCHEMY_CONNECTION_CREATOR_TOPIC": settings.connection_creator_topic,
        "SQLALCHEMY_ENGINE_TOPIC": settings.engine_topic,
        "ORIGINATOR_ID_TYPE": settings.originator_id_type,
        "CREATE_TABLE": Settings.read_create_table(env),
    }
    values |= {
        name: Settings.read_topic(env, name)
        for name in (f"{kind}_RECORDER_TOPIC" for kind in ("AGGREGATE", "APPLICATION", "TRACKING", "PROCESS"))
    }
    tenancy = TenancySettings.read({"SQLALCHEMY_URL": "postgresql://postgres@127.0.0.1/school"})
    values |= {
        "TENANCY_APP": None,
        "TENANCY_CONTROL_URL": None,
        "TENANCY_CONTROL_SCHEMA": tenancy.control_schema,
        "TENANCY_SCHEMA": tenancy.schema,
        "TENANCY_TABLE_PREFIX": tenancy.table_prefix,
        "TENANCY_SLUGS": tenancy.slugs,
        "TENANCY_MIGRATIONS": tenancy.migrations,
        "TENANCY_REQUIRES": None,
        "TENANCY_QUOTAS": tenancy.quotas_topic,
        "TENANCY_RESERVED_SLUGS": "default",
        "TENANCY_GRACE_DAYS": tenancy.grace_days,
        "TENANCY_MAX_APPLICATIONS": tenancy.max_applications,
        "TENANCY_MAX_OUTAGE": tenancy.max_outage,
        "TENANCY_TENANT": None,
    }
    return {name: _as_written(value) for name, value in values.items()}


def _as_written(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:g}"
    return str(value or "none")


def variables_read() -> set[str]:
    """Return the variables that the packages read."""
    package = ROOT / "eventsourcing_sqlalchemy"
    sources = [(package / name).read_text(encoding="utf-8") for name in ("settings.py", "factory.py")]
    return set(VARIABLES).union(*map(variables_in_code, sources))


def test_documented_variables_are_those_that_are_read() -> None:
    documented = variables_in_page(SETTINGS_PAGE.read_text(encoding="utf-8"))
    assert sorted(documented) == sorted(variables_read())


def test_documented_defaults_are_those_of_the_code() -> None:
    documented = variables_in_page(SETTINGS_PAGE.read_text(encoding="utf-8"))
    assert documented == defaults()


def test_no_page_names_a_variable_that_does_not_exist() -> None:
    known = variables_read() | {"PERSISTENCE_MODULE", "TENANCY_PORT", "TENANCY_SERVICE_HOST"}
    for page in PAGES:
        for name in re.findall(r"\b(?:[A-Z]+_)*(?:SQLALCHEMY|TENANCY)_[A-Z_]+\b", page.read_text(encoding="utf-8")):
            # Flask-SQLAlchemy has its own. An application's name may precede it.
            if name != "SQLALCHEMY_DATABASE_URI":
                assert re.sub("^.*(?=SQLALCHEMY_|TENANCY_)", "", name) in known, f"{page.name}: {name}"


# -- these tests can fail --


def test_a_different_variable_or_default_is_noticed() -> None:
    page = SETTINGS_PAGE.read_text(encoding="utf-8")
    without_one = re.sub(r"^\| `SQLALCHEMY_POOL_SIZE`.*\n", "", page, flags=re.MULTILINE)
    assert variables_read() - variables_in_page(without_one).keys() == {"SQLALCHEMY_POOL_SIZE"}
    assert variables_in_page(page.replace("| `1800` |", "| `3600` |")) != defaults()
    assert variables_in_code('read.text("SQLALCHEMY_NEW_ONE"); self.ANOTHER_TOPIC') == {
        "SQLALCHEMY_NEW_ONE",
        "ANOTHER_TOPIC",
    }


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n", "prints\n2\n"),
        ("```python\nprint(1 + 1)\n```\n", "prints\n2\n"),
        ("```python\nx = 1\n```\n\n```text\n1\n```\n", "prints\n\n"),
        (
            "```shell\nexport A_SETTING=b\n```\n\n```python\nimport os\n\nprint(os.environ['A_SETTING'])\n```\n",
            "prints\nb\n",
        ),
    ],
)
@pytest.mark.usefixtures("_restored")
def test_a_wrong_page_fails(text: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match=re.escape(error)):
        Reader(page, replace=str, run_sql=print).read(blocks_of(page))


def test_an_unrun_block_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: it needs the moon -->\n\n```python\nraise OSError\n```\n", encoding="utf-8")
    (block,) = blocks_of(page)
    assert not block.is_run
