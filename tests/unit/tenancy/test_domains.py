"""Host names in the form in which browsers send them, and the map of verified ones."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from tenancy.errors import InvalidArgument, InvalidDomain
from tenancy.model.domains import normalize_domain
from tenancy.registry.domain_map import DomainMap


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("shop.acme.example", "shop.acme.example"),
        ("Shop.ACME.Example", "shop.acme.example"),
        ("shop.acme.example.", "shop.acme.example"),
        ("shop.acme.example:8443", "shop.acme.example"),
        ("shop.acme.example.:443", "shop.acme.example"),
        ("MÜNCHEN.example", "xn--mnchen-3ya.example"),
        ("mu\u0308nchen.example", "xn--mnchen-3ya.example"),  # decomposed
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("straße.example", "xn--strae-oqa.example"),  # not "strasse.example", as in IDNA 2003
        ("shop。acme．example", "shop.acme.example"),  # noqa: RUF001 (dots that browsers accept)
        (f"{'a' * 63}.example", f"{'a' * 63}.example"),
    ],
)
def test_ways_to_write_a_host(written: str, host: str) -> None:
    assert normalize_domain(written) == host
    assert normalize_domain(host) == host


@pytest.mark.parametrize(
    "written",
    [
        "",
        ".",
        "acme",
        "10.0.0.7",
        "[::1]:80",
        "https://shop.example.com",
        "shop.example.com/path",
        "user@shop.example.com",
        "*.example.com",
        "a..example.com",
        "a b.example.com",
        "-a.example.com",
        "a-.example.com",
        "a_b.example.com",
        "a\0.example.com",
        "a\n.example.com",
        f"{'a' * 64}.example.com",
        f"{'a.' * 126}example",
        "ÿ" * 100_000,
        "a\u202e.example.com",
        "😀.example.com",
        "xn--a-.example.com",
        "xn--\u00fc.example.com",
        "xn--99999999999.example.com",
        "\ud800.example.com",
    ],
)
def test_malformed_hosts_are_refused(written: str) -> None:
    with pytest.raises(InvalidDomain, match=r"^The domain ") as raised:
        normalize_domain(written)
    assert len(str(raised.value)) < 3000
    assert raised.value.remedy


def test_a_host_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="a host name"):
        normalize_domain(5)  # type: ignore[arg-type]


def test_without_the_extra_only_ascii_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def import_(name: str, *rest: Any, **options: Any) -> Any:
        if name == "idna":
            raise ImportError
        return real_import(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", import_)
    assert normalize_domain("xn--mnchen-3ya.example") == "xn--mnchen-3ya.example"
    with pytest.raises(InvalidDomain, match=r"eventsourcing-sqlalchemy\[domains\]"):
        normalize_domain("münchen.example")


# -- the map --

ACME, GLOBEX = uuid4(), uuid4()


class Source:
    """The registry, whose queries are counted."""

    def __init__(self) -> None:
        self.hosts = {"acme.example": ACME}
        self.queries: list[Sequence[UUID] | None] = []

    def read(self, tenant_ids: Sequence[UUID] | None) -> list[tuple[str, UUID]]:
        self.queries.append(tenant_ids)
        return [(host, each) for host, each in self.hosts.items() if tenant_ids is None or each in tenant_ids]


def test_all_hosts_are_read_once() -> None:
    source = Source()
    domains = DomainMap(source.read)
    assert domains.recall("acme.example") == (False, None)
    assert source.queries == []
    assert [domains.find(host) for host in ("acme.example", "x.example", "y.example")] == [ACME, None, None]
    assert domains.recall("z.example") == (True, None)
    assert source.queries == [None]


def test_only_changed_tenants_are_read_again() -> None:
    source = Source()
    domains = DomainMap(source.read)
    domains.find("x.example")
    source.hosts = {"acme.example": ACME, "globex.example": GLOBEX}
    domains.forget([GLOBEX])
    assert domains.recall("acme.example") == (True, ACME)
    assert domains.recall("globex.example") == (False, None)
    assert domains.find("globex.example") == GLOBEX
    assert source.queries == [None, [GLOBEX]]


def test_a_host_moves_to_another_tenant() -> None:
    source = Source()
    domains = DomainMap(source.read)
    domains.find("acme.example")
    source.hosts = {"acme.example": GLOBEX}
    domains.forget([ACME])
    domains.forget([GLOBEX])
    assert domains.find("acme.example") == GLOBEX
    source.hosts = {}
    domains.forget([ACME, GLOBEX])
    assert domains.find("acme.example") is None


@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_change_during_a_query_is_read_afterwards(is_loaded: bool) -> None:
    source = Source()

    def read(tenant_ids: Sequence[UUID] | None) -> list[tuple[str, UUID]]:
        found = source.read(tenant_ids)
        if source.hosts:
            source.hosts = {}
            domains.forget([ACME])
        return found

    domains = DomainMap(source.read)
    if is_loaded:
        domains.find("acme.example")
        domains.forget([ACME])
    domains._read = read  # noqa: SLF001 (to change the source in the middle)
    domains.find("x.example")
    assert domains.find("acme.example") is None


def test_changes_cost_nothing_before_the_first_use() -> None:
    source = Source()
    domains = DomainMap(source.read)
    for _ in range(1000):
        domains.forget([uuid4()])
    assert domains._stale == {}  # noqa: SLF001 (it must not grow)
    assert domains.find("acme.example") == ACME
