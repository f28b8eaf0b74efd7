"""Slugs in the host, the path or a header of a request."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenancy.errors import InvalidArgument, InvalidSlug
from tenancy.model.slugs import normalize
from tenancy.web.resolvers import Found, Request, by_domain, by_header, by_host, by_path, first

# -- by host --


def at(*hosts: str) -> Request:
    return Request(path="/", headers=[("accept", "*/*"), *(("host", host) for host in hosts)])


@pytest.mark.parametrize(
    ("host", "slug"),
    [
        ("acme.example.com", "acme"),
        ("acme.example.com:8000", "acme"),
        ("acme.example.com:", "acme"),
        ("ACME.Example.COM", "acme"),
        ("acme.example.com.", "acme"),
        ("acme.example.com.:443", "acme"),
        ("a-1.example.com", "a-1"),
        ("a_b.example.com", "a_b"),
        ("xn--mnchen-3ya.example.com", "münchen"),
        ("XN--MNCHEN-3YA.example.com", "münchen"),
        ("xn--strae-oqa.example.com", "straße"),  # as browsers send it
        ("xn--n3h.example.com", "☃"),
    ],
)
def test_the_first_part_of_the_host_is_the_slug(host: str, slug: str) -> None:
    assert by_host("example.com")(at(host)) == slug


@pytest.mark.parametrize(
    "host", ["example.com", "localhost", "127.0.0.1:80", "[::1]:80", "acme.example.org", "acme.evilexample.com", ""]
)
def test_another_host_names_no_tenant(host: str) -> None:
    assert by_host("example.com")(at(host)) is None


def test_a_request_without_a_host_names_no_tenant() -> None:
    assert by_host("example.com")(at()) is None


@pytest.mark.parametrize(
    "hosts",
    [
        ("a.b.example.com",),
        (".example.com",),
        ("a b.example.com",),
        ("a%62.example.com",),
        ("user@acme.example.com",),
        ("-a.example.com",),
        ("a" * 64 + ".example.com",),
        ("münchen.example.com",),  # clients write punycode
        ("xn--acme-.example.com",),  # not canonical: an alias of acme
        ("xn--9999999999.example.com",),
        ("xn--.example.com",),
        ("acme.example.com", "acme.example.com"),
        ("acme.example.com", "localhost"),
        ("acme.example.com,localhost",),  # two headers, joined by a WSGI server
    ],
)
def test_a_malformed_host_is_refused(hosts: tuple[str, ...]) -> None:
    with pytest.raises(InvalidSlug):
        by_host("example.com")(at(*hosts))


@pytest.mark.parametrize("domain", ["Example.COM", ".example.com", "example.com."])
def test_the_domain_may_be_written_in_other_ways(domain: str) -> None:
    assert by_host(domain)(at("acme.example.com")) == "acme"


def test_the_domain_may_be_an_international_one() -> None:
    assert by_host("bücher.example")(at("acme.xn--bcher-kva.example")) == "acme"


@pytest.mark.parametrize("domain", ["", ".", "https://example.com", "example.com:80", "*.example.com", "a..b"])
def test_an_invalid_domain_is_refused_immediately(domain: str) -> None:
    with pytest.raises(ValueError, match=r"by_host\('example.com'\)"):
        by_host(domain)


@given(st.text(st.characters(codec="ascii"), max_size=20) | st.from_regex(r"\Axn--[a-z0-9-]{0,12}\Z"))
def test_no_host_makes_a_resolver_fail(label: str) -> None:
    with suppress(InvalidSlug):
        slug = by_host("example.com")(at(f"{label}.example.com"))
        assert slug is None or normalize(str(slug))


# -- by path --


@pytest.mark.parametrize(
    ("prefix", "path", "found"),
    [
        ("/t", "/t/acme", Found("acme", "/t/acme")),
        ("/t", "/t/acme/", Found("acme", "/t/acme")),
        ("/t", "/t/acme/orders/1", Found("acme", "/t/acme")),
        ("/t", "/t/Ünï-cödé x/orders", Found("Ünï-cödé x", "/t/Ünï-cödé x")),
        ("/t", "/t/%61cme/orders", Found("%61cme", "/t/%61cme")),  # not decoded a second time
        ("/t", "/t/../acme", Found("..", "/t/..")),  # the registry refuses it
        ("/t", "/t", None),
        ("/t", "/t/", None),
        ("/t", "/t//acme", None),
        ("/t", "/tacme", None),
        ("/t", "/T/acme", None),
        ("/t", "/", None),
        ("/a/b", "/a/b/acme/c", Found("acme", "/a/b/acme")),
        ("", "/acme/orders", Found("acme", "/acme")),
        ("", "/", None),
        ("", "", None),
        ("", "*", None),
    ],
)
def test_the_first_segment_of_the_path_is_the_slug(prefix: str, path: str, found: Found | None) -> None:
    assert by_path(prefix)(Request(path=path)) == found


@pytest.mark.parametrize("prefix", ["t", "/", "/t/"])
def test_an_invalid_prefix_is_refused_immediately(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"by_path\('/t'\)"):
        by_path(prefix)


# -- by header --


@pytest.mark.parametrize(
    ("value", "slug"),
    [("acme", "acme"), ("%C3%9Cn%C3%AF x", "Ünï x"), ("a%2Cb", "a,b"), ("50%25", "50%"), ("", "")],
)
def test_the_value_of_the_header_is_the_slug(value: str, slug: str) -> None:
    assert by_header("X-Tenant")(Request(path="/", headers=[("x-tenant", value)])) == slug


def test_a_request_without_the_header_names_no_tenant() -> None:
    assert by_header("X-Tenant")(Request(path="/", headers=[("x-tenants", "acme")])) is None


@pytest.mark.parametrize("values", [("acme", "acme"), ("acme", "globex"), ("acme,globex",), ("%FF",), ("ünï",)])
def test_a_repeated_or_unreadable_header_is_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(InvalidSlug):
        by_header("X-Tenant")(Request(path="/", headers=[("x-tenant", value) for value in values]))


@pytest.mark.parametrize("name", ["", "X Tenant", "X-Tenant:", "X_Ténant"])
def test_an_invalid_header_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a header name.*by_header\('X-Tenant'\)"):
        by_header(name)


# -- several --


def test_the_first_resolver_that_names_a_tenant_decides() -> None:
    resolve = first(by_header("X-Tenant"), by_path("/t"), by_host("example.com"))
    host, header = ("host", "acme.example.com"), ("x-tenant", "globex")
    assert resolve(Request(path="/", headers=[host])) == "acme"
    assert resolve(Request(path="/", headers=[host, header])) == "globex"
    assert resolve(Request(path="/t/initech/x", headers=[host])) == Found("initech", "/t/initech")
    assert resolve(Request(path="/", headers=[])) is None


@pytest.mark.parametrize("value", ["", "a,b", "%FF"])
def test_a_malformed_name_ends_the_search(value: str) -> None:
    resolve = first(by_header("X-Tenant"), by_host("example.com"))
    request = Request(path="/", headers=[("host", "acme.example.com"), ("x-tenant", value)])
    try:
        assert resolve(request) == ""
    except InvalidSlug:
        assert value


def test_wrong_resolvers_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="has no resolver"):
        first()
    with pytest.raises(InvalidArgument, match=r"of type str\. Pass functions"):
        first(by_path(), "acme")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="no fleet to look in"):
        by_domain()(at("acme.example"))
    assert by_domain()(Request(path="/")) is None
