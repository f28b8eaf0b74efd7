"""The variables of a tenant, for programs that are unaware of tenants."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

from tenancy import Tenancy
from tests.acceptance.commands import KENNEL, Command
from tests.acceptance.verbs.conftest import quick, tenancy
from tests.samples.kennels import Kennel
from tests.support.kennel_fleets import GIVEN

__all__ = ["quick", "tenancy"]  # the fixtures


def _by_shell(script: str, url: str) -> dict[str, str]:
    """Return the variables of a shell after a script."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"{script}\nenv -0"], env={"SQLALCHEMY_URL": url}, capture_output=True, check=True
    )
    return dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)


@pytest.mark.parametrize("secrets", [[], ["--show-secrets"]])
@pytest.mark.parametrize("form", ["sh", "dotenv", "json"])
def test_variables_are_those_of_the_tenant_in_every_format(tenancy: Command, form: str, secrets: list[str]) -> None:
    tenancy.ok("create", 'it\'s $HOME `x` "q" \\ é')
    slug = 'it\'s $home `x` "q" \\ é'
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": tenancy.url}) as tenants:
        expected = tenants.env(slug)
    text = tenancy.ok("env", slug, "--format", form, *secrets).out
    if form == "json":
        found = {key: tenancy.url if value == "${SQLALCHEMY_URL}" else value for key, value in json.loads(text).items()}
    else:
        found = _by_shell(f"set -a\n{text}", tenancy.url)
    urls = {key for key, value in expected.items() if value == expected["SQLALCHEMY_URL"]}
    assert {key: found[key] for key in expected if key not in urls} == {
        key: value for key, value in expected.items() if key not in urls
    }
    for key in urls:
        assert found[key] == (expected[key] if secrets else tenancy.url)


def test_a_reference_to_an_unset_variable_fails(quick: Command) -> None:
    quick.ok("create", "acme")
    script = quick.ok("env", "acme").out
    done = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "SQLALCHEMY_URL" in done.stderr


def test_dangerous_values_are_quoted(monkeypatch: pytest.MonkeyPatch, quick: Command) -> None:
    quick.ok("create", "acme")
    hostile = "a'b\"c\\d $(touch /tmp/x) `id` ;|& é"
    monkeypatch.setattr(Tenancy, "env", lambda *_: {"A": hostile, "B": "line 1\nline 2"})
    text = quick.ok("env", "acme").out
    assert _by_shell(text, "")["A"] == hostile
    assert _by_shell(text, "")["B"] == "line 1\nline 2"
    words = shlex.split(quick.ok("env", "acme", "--format", "dotenv").out)
    assert words[0] == f"A={hostile}"


def test_variables_passed_by_the_code_are_included_and_secrets_hidden(quick: Command) -> None:
    given = Command(quick.url, f"{KENNEL}:given")
    given.ok("create", "acme")
    shown = given.ok("env", "acme", "--json").out
    assert json.loads(shown)["COMPRESSOR_TOPIC"] == "zlib"
    assert not any(value in shown for name, value in GIVEN.items() if name != "COMPRESSOR_TOPIC")
    assert json.loads(given.ok("env", "acme", "--json", "--show-secrets").out).items() >= GIVEN.items()
    reads = [sys.executable, "-c", "import os; print(os.environ['CIPHER_KEY'])"]
    assert given.process("exec", "acme", "--", *reads).out.strip() == GIVEN["CIPHER_KEY"]
