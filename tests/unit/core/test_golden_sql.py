"""The SQL that is sent equals the reviewed files."""

import re

import pytest

from eventsourcing_sqlalchemy import queries
from tests.unit.core.golden_sql import DIRECTORY, HOW_TO_WRITE, NAMES, text_of

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(DIRECTORY.glob("*.sql"))}


@pytest.mark.parametrize("name", NAMES)
def test_sql_equals_the_file(name: str) -> None:
    assert text_of(name) == TEXTS.get(name, ""), (
        f"The SQL differs from {DIRECTORY.name}/{name}. If it is meant to: {HOW_TO_WRITE}, and read the difference."
    )


def test_there_are_no_outdated_files() -> None:
    assert sorted(TEXTS) == sorted(NAMES)


@pytest.mark.parametrize("function", queries.__all__)
def test_every_statement_is_in_a_file(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changing a statement must change a file."""
    original = getattr(queries, function)

    def changed(*arguments: object, **options: object) -> str:
        return f"{original(*arguments, **options)} CHANGED"

    monkeypatch.setattr(queries, function, changed)
    for database in ("postgresql", "sqlite"):
        name = f"{database}_uuid_reads.sql"
        assert "CHANGED" in text_of(name)
        assert text_of(name) != TEXTS[name]


def test_names_are_qualified_and_quoted_on_postgresql() -> None:
    for name, text in TEXTS.items():
        if name.startswith("postgresql"):
            tables = re.findall(r'(\S+)"(?:dogs_(?:events|snapshots|tracking))"', text)
            assert tables
            assert set(tables) == {'"school".'}, name


def test_nothing_depends_on_the_session_on_postgresql() -> None:
    forbidden = re.compile(
        r"search_path|\bSET SESSION\b|^SET |pg_advisory_lock|TRIGGER|WITH HOLD|REFERENCES", re.MULTILINE
    )
    for name, text in TEXTS.items():
        if name.startswith("postgresql"):
            assert not forbidden.findall(text), name
            settings = re.findall(r"set_config\([^)]*\)", text)
            assert all(setting.endswith(", true)") for setting in settings), name


def test_every_statement_with_ids_takes_the_writer_lock_on_postgresql() -> None:
    for ids in ("uuid", "text"):
        sections = TEXTS[f"postgresql_{ids}_writes.sql"].split("\n\n")
        for section in sections:
            lock, insert = section.find("pg_advisory_xact_lock"), section.find("RETURNING id")
            assert (lock == -1) == (insert == -1), section
            assert lock <= insert, section
            tracking = section.find("notification_id <")
            assert tracking == -1 or insert == -1 or tracking < lock, section
