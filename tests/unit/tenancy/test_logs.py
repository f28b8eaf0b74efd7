"""Records as JSON lines: which tenant they name, and what they never contain."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import IntegrityError, OperationalError, ProgrammingError

from eventsourcing_sqlalchemy.error_fields import error_code, error_fields
from eventsourcing_sqlalchemy.errors import SettingsError
from tenancy import Tenancy
from tenancy.cli.printed_lines import PrintedLines
from tenancy.errors import RegistryUnavailable, TenantSuspended
from tenancy.telemetry.logs import JSONFormatter, TenantFilter, tenant_fields
from tests.samples.training_school.application import TrainingSchool

ODD_SLUG = "ünï-cödé x"


@contextmanager
def logging_to(lines: io.StringIO, tenants: Tenancy | None = None) -> Iterator[logging.Logger]:
    logger, handler = logging.getLogger(f"shop.{uuid4()}"), logging.StreamHandler(lines)
    handler.setFormatter(JSONFormatter())
    if tenants is not None:
        handler.addFilter(TenantFilter(tenants))
    logger.propagate = False
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


@pytest.fixture
def tenants(sqlite_url: str) -> Iterator[Tenancy]:
    with Tenancy(applications=[TrainingSchool], env={"SQLALCHEMY_URL": sqlite_url}) as tenants:
        tenants.create("acme")
        tenants.create(ODD_SLUG)
        yield tenants


def records(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_each_record_names_the_tenant_of_its_context(tenants: Tenancy) -> None:
    lines, acme = io.StringIO(), tenants["acme"]
    with logging_to(lines, tenants) as logger:
        logger.warning("outside")
        with tenants.scope("acme"):
            logger.warning("inside")
            with tenants.scope(ODD_SLUG):
                logger.warning("further inside")
            # A new thread has no tenant.
            thread = threading.Thread(target=logger.warning, args=("in a thread",))
            thread.start()
            thread.join()
        logger.warning("named", extra={"tenant_id": str(acme.id)})
        logger.warning("unknown", extra={"tenant_id": "no id"})
        logger.warning("another meaning", extra={"tenant_id": 5})
        with tenants.scope("acme"):
            logger.warning("another", extra={"tenant_id": tenants[ODD_SLUG].id})
    named = [(each["message"], each.get("tenant")) for each in records(lines)]
    assert named == [
        ("outside", None),
        ("inside", "acme"),
        ("further inside", ODD_SLUG),
        ("in a thread", None),
        ("named", "acme"),
        ("unknown", None),
        ("another meaning", None),
        ("another", ODD_SLUG),
    ]
    assert records(lines)[1]["tenant_id"] == str(acme.id)
    assert tenant_fields(tenants) == {}


def test_the_filter_asks_no_database_and_outlives_the_fleet(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.StringIO()
    with logging_to(lines, tenants) as logger, tenants.scope("acme"):
        monkeypatch.setattr(tenants.fleet.registry, "get", None)
        tenants.fleet.registry_cache.forget(tenants["acme"].id)
        logger.warning("slug not cached")
        tenants.close()
        logger.warning("closed")
    assert [each.get("tenant") for each in records(lines)] == [None, None]
    assert [len(each["tenant_id"]) for each in records(lines)] == [36, 36]


def test_a_line_has_no_message_of_an_error_and_no_password() -> None:
    lines = io.StringIO()
    with logging_to(lines) as logger:
        try:
            int("canary")
        except ValueError as error:
            logger.exception("first")
            logger.exception("second: %s", error)  # noqa: TRY401 (what users do)
            logger.warning(error)
            logger.warning("third", extra=error_fields(error))
        logger.warning("%(error)s", {"error": ValueError("canary")})
        logger.warning("postgresql://user:canary@host/db and %s", "sqlite://x?password=canary&y=1")
        logger.warning("%d", "canary")
        logger.warning("two\nlines")
    assert "canary" not in lines.getvalue()
    found = records(lines)
    assert [each["message"] for each in found] == [
        "first",
        "second: builtins.ValueError",
        "builtins.ValueError",
        "third",
        "builtins.ValueError",
        "postgresql://user:***@host/db and sqlite://x?password=***&y=1",
        "%d",
        "two\nlines",
    ]
    assert {each.get("error") for each in (*found[:2], found[3])} == {"builtins.ValueError"}
    assert found[3]["frames"][-1].startswith(f"{__name__}:")


class DriverError(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("canary")
        self.sqlstate = sqlstate


def test_codes_of_errors() -> None:
    conflict, shutdown, locked = IntegrityError("x"), OperationalError("x"), OperationalError("x")
    conflict.__cause__, shutdown.__cause__ = DriverError("23505"), DriverError("57P01")
    locked.__cause__ = DriverError("55P03")
    errors = {
        TenantSuspended("x"): "suspended",
        RegistryUnavailable("x"): "unreachable",
        SettingsError("x"): "settings",
        conflict: "conflict",
        shutdown: "unreachable",
        OperationalError("x"): "unreachable",
        locked: "database",
        ProgrammingError("x"): "database",
        KeyError("x"): "internal",
    }
    assert [error_code(error) for error in errors] == list(errors.values())
    lines = io.StringIO()
    with logging_to(lines) as logger:
        logger.error("x", extra=error_fields(conflict))
    assert (records(lines)[0]["sqlstate"], records(lines)[0]["code"]) == ("23505", "conflict")


def test_printed_lines_of_many_threads_stay_whole() -> None:
    lines, written = io.StringIO(), io.StringIO()
    with logging_to(lines) as logger:
        logger.setLevel(logging.INFO)
        stream = PrintedLines("stdout", logger, written)
        threads = [threading.Thread(target=stream.write, args=(f"{number}\n" * 50,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("no end", end="", file=stream)
        stream.close()
    messages = [each["message"] for each in records(lines)]
    assert sorted(messages) == sorted([*"0123" * 50, "no end"])
    assert written.getvalue() == ""


def test_ids_of_the_current_span() -> None:
    opentelemetry = pytest.importorskip("opentelemetry.trace")
    context = opentelemetry.SpanContext(trace_id=10, span_id=11, is_remote=False)
    lines = io.StringIO()
    with logging_to(lines) as logger:
        logger.warning("outside")
        with opentelemetry.use_span(opentelemetry.NonRecordingSpan(context)):
            logger.warning("inside")
    assert "opentelemetry.trace" in sys.modules
    assert [each.get("trace_id", "")[-2:] for each in records(lines)] == ["", "0a"]
