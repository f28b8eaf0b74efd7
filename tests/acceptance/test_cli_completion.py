"""Shells complete commands, options and slugs."""

from __future__ import annotations

import pytest

from tests.acceptance.commands import Command


@pytest.fixture(params=["sqlite", "postgres"])
def tenancy(request: pytest.FixtureRequest) -> Command:
    """The command on a database with tenants."""
    command = Command(request.getfixturevalue(f"{request.param}_url"), app=None)
    Command(command.url).ok("create", "acme", "acme_2", "a%b", "Ünï", "globex")
    return command


def completed(command: Command, line: str) -> list[str]:
    """Return what bash is told about the last word of a line; complete lines end with a space."""
    outcome = command.process(
        _TENANCY_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(line.split(" ")) - 1)
    )
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return outcome.out.split()


def test_slugs_are_completed(tenancy: Command) -> None:
    assert completed(tenancy, "tenancy show acm") == ["acme", "acme_2"]
    assert completed(tenancy, "tenancy suspend ün") == ["ünï"]
    assert completed(tenancy, "tenancy purge acme glo") == ["globex"]
    assert completed(tenancy, "tenancy show a%") == ["a%b"], "not a pattern"
    assert completed(tenancy, "tenancy show acme_") == ["acme_2"]


def test_commands_and_options_are_completed(sqlite_url: str) -> None:
    command = Command(sqlite_url, app=None)
    assert completed(command, "tenancy su") == ["suspend"]
    assert completed(command, "tenancy jobs re") == ["resume", "remove"]
    assert completed(command, "tenancy update acme --se") == ["--set"]


@pytest.mark.parametrize("url", ["", "nonsense", "postgresql://postgres@127.0.0.1:1/x"])
def test_nothing_is_suggested_without_a_registry(url: str, sqlite_url: str) -> None:
    assert completed(Command(url, app=None), "tenancy show a") == []
    assert completed(Command(sqlite_url, app=None), "tenancy show a") == []
    assert completed(Command(sqlite_url, app="nowhere:tenants"), "tenancy show a") == []
