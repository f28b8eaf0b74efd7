"""Error budgets, options of jobs, and how the command line reads them."""

from __future__ import annotations

import inspect

import pytest

from tenancy.cli.commands.jobs import run
from tenancy.cli.errors import CommandError
from tenancy.cli.job_options import TenantFilters
from tenancy.errors import InvalidArgument
from tenancy.operations.jobs import JobOptions, TenantSelection
from tenancy.operations.jobs.options import max_failures


@pytest.mark.parametrize(
    ("error_budget", "items", "expected"),
    [
        ("0", 1000, 0),
        ("3", 1000, 3),
        ("3", 1, 3),
        ("0%", 1000, 0),
        ("1%", 1, 1),
        ("1%", 100, 1),
        ("1%", 101, 2),
        ("1%", 500, 5),
        ("0.5%", 1000, 5),
        ("1.1%", 1000, 11),
        ("100%", 7, 7),
        ("1%", 0, 0),
    ],
)
def test_error_budget(error_budget: str, items: int, expected: int) -> None:
    assert max_failures(error_budget, items) == expected


@pytest.mark.parametrize("error_budget", ["", "-1", "1.5", "%", "1 %", "x", "\u0661", "1e3", "1%%", None, 3])
def test_what_is_not_an_error_budget(error_budget: str) -> None:
    with pytest.raises(InvalidArgument, match="neither a number nor a percentage"):
        JobOptions(error_budget=error_budget)


@pytest.mark.parametrize(
    "options",
    [{"canary": -1}, {"canary": "2"}, {"lease_seconds": 0}, {"lease_seconds": float("nan")}, {"check": lambda: True}],
)
def test_options_that_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        JobOptions(**options)  # type: ignore[arg-type]


def test_the_defaults_of_the_command_are_those_of_the_library() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(run).parameters.items()}
    options = JobOptions()
    assert defaults["error_budget"] == options.error_budget
    assert defaults["lease_seconds"] == options.lease_seconds
    assert defaults["canary"] == options.canary


def test_filters_of_the_command() -> None:
    filters = TenantFilters(["acme"], "active", ["plan=free", "note=a=b", "empty="], 5, ["globex"])
    assert filters.selection() == TenantSelection(
        slugs=["acme"],
        status="active",
        where={"plan": "free", "note": "a=b", "empty": ""},
        limit=5,
        exclude=["globex"],
    )
    assert TenantFilters().selection() == TenantSelection()


@pytest.mark.parametrize("text", ["plan", "=free", ""])
def test_what_is_not_a_condition(text: str) -> None:
    with pytest.raises(CommandError, match="not of the form KEY=VALUE"):
        TenantFilters(where=[text]).selection()


@pytest.mark.parametrize("status", ["provisioning", "purging", "awake"])
def test_a_status_that_cannot_be_selected(status: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be selected"):
        TenantSelection(status=status)
