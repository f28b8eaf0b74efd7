"""Both kinds of middleware: the scope of a request, and the error responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tenancy import Tenancy
from tenancy.errors import NoCurrentTenant, TenantNotFound, TenantPurged
from tenancy.model.placement import Placement
from tenancy.model.tenant import Tenant, TenantRequest
from tenancy.model.versions import Versions
from tenancy.testing.postgresql import PostgresServer
from tenancy.web.resolvers import Request, Resolver, by_domain, by_header, by_host, by_path, first
from tenancy.web.responses import error_response
from tests.samples.kennels import Kennel
from tests.support.web import Answer, Kind, Web

SECRET = "overdue"  # noqa: S105 (a reason that no client must see)


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def serve(kind: Kind, tenants: Tenancy) -> Callable[..., Web]:
    def serve(handler: Callable[..., str], resolver: Resolver | None = None, **options: Any) -> Web:
        return Web(kind, tenants, handler, resolver or by_path("/t"), **options)

    return serve


def slug_of_current(tenants: Tenancy) -> Callable[[str, str], str]:
    return lambda root, path: f"{tenants.current.slug} at {root} gets {path}"


# -- in the scope of a tenant --


def test_the_application_has_the_tenant_and_the_rest_of_the_path(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    tenants.create("Ünï-cödé x")
    web = serve(slug_of_current(tenants))
    assert web.get("/t/acme/orders/1").body == "acme at /t/acme gets /orders/1"
    assert web.get("/t/ACME").body == "acme at /t/ACME gets "
    assert web.get("/t/%C3%9Cn%C3%AF-c%C3%B6d%C3%A9%20x/%C3%A9").body == "ünï-cödé x at /t/Ünï-cödé x gets /é"


def test_hosts_and_headers_keep_the_path(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    by_hosts = serve(slug_of_current(tenants), by_host("example.com"))
    assert by_hosts.get("/orders", headers={"host": "acme.example.com:80"}).body == "acme at  gets /orders"
    by_headers = serve(slug_of_current(tenants), by_header("X-Tenant"))
    assert by_headers.get("/orders", headers={"x-tenant": "acme"}).body == "acme at  gets /orders"


def test_a_function_is_a_resolver(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")

    def by_token(request: Request) -> str | None:
        tokens = request.values("authorization")
        return {"Bearer a1": "acme"}.get(tokens[0]) if len(tokens) == 1 else None

    web = serve(slug_of_current(tenants), by_token)
    assert web.get("/", headers={"authorization": "Bearer a1"}).body == "acme at  gets /"
    assert web.get("/", headers={"authorization": "Bearer a2"}).status == 404


def test_a_resolver_that_returns_another_type_is_refused(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    with pytest.raises(TypeError, match="The resolver returned int"):
        serve(slug_of_current(tenants), lambda _: 1).get("/")


def add_domain(tenants: Tenancy, slug: str, host: str) -> None:
    tenants.domains.verify(slug, host, tenants.domains.add(slug, host).token)


def test_a_verified_domain_leads_to_its_tenant(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    add_domain(tenants, "acme", "münchen.acme.example")
    tenants.domains.add("acme", "unverified.acme.example")
    web = serve(slug_of_current(tenants), by_domain())
    host = "xn--mnchen-3ya.acme.example"
    for written in (host, f"{host.upper()}.:8000"):
        assert web.get("/orders", headers={"host": written}).body == "acme at  gets /orders"
    for unknown in ("unverified.acme.example", "acme.example", "x", "10.0.0.7", "a,b", "[::1]:80", f"x.{host}"):
        assert web.get("/", headers={"host": unknown}).status == 404
    tenants.suspend("acme")
    assert web.get("/", headers={"host": host}).status == 403
    tenants.resume("acme")
    tenants.domains.remove("acme", host)
    assert web.get("/", headers={"host": host}).status == 404


def test_resolvers_compose(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    tenants.create("globex")
    add_domain(tenants, "acme", "acme.example")
    # A host below the fleet's own domain is for the slug, even if a tenant has it as a domain.
    add_domain(tenants, "acme", "globex.example.com")
    resolver = first(by_header("X-Tenant"), by_host("example.com"), by_domain())
    web = serve(slug_of_current(tenants), resolver)

    def slug(host: str, **headers: str) -> str:
        return web.get("/", headers={"host": host, **headers}).body.partition(" ")[0]

    assert slug("acme.example") == slug("acme.example.com") == "acme"
    assert slug("globex.example.com") == "globex"
    assert slug("acme.example", **{"x-tenant": "globex"}) == "globex"
    for headers in ({"host": "x.example"}, {"host": "x.example.com"}, {"host": "acme.example", "x-tenant": "x"}):
        assert web.get("/", headers=headers).status == 404


def test_a_resolver_may_return_a_tenant(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    acme = tenants.create("acme")
    web = serve(slug_of_current(tenants), lambda _: acme)
    assert web.get("/").body == "acme at  gets /"
    tenants.rename("acme", "apex")
    tenants.create("acme")
    assert web.get("/").body == "apex at  gets /"  # the tenant itself, under its new slug
    tenants.suspend("apex")
    assert web.get("/").status == 403  # whatever the object says
    tenants.purge(tenants["apex"])
    assert web.get("/").status == 404


def test_no_tenant_is_current_after_the_request(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    assert serve(slug_of_current(tenants)).get("/t/acme/").status == 200
    with pytest.raises(NoCurrentTenant):
        _ = tenants.current


# -- without a tenant --


def current_or_none(tenants: Tenancy) -> Callable[[str, str], str]:
    def handler(*_: str) -> str:
        try:
            return tenants.current.slug
        except NoCurrentTenant:
            return "none"

    return handler


def test_only_public_paths_are_served_without_a_tenant(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    web = serve(current_or_none(tenants), public=["/", "/health", "/static/*"])
    for path in ("/", "/health", "/static/", "/static/a/b"):
        assert web.get(path).body == "none"
    for path in ("/health/", "/healthy", "/static", "/other", "/t", "/t/"):
        assert web.get(path).status == 404


def test_no_path_is_public_by_default(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.init()
    assert serve(current_or_none(tenants)).get("/").status == 404


def test_a_public_path_has_no_tenant_of_the_context_around_it(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    with tenants.scope("acme"):
        assert serve(current_or_none(tenants), public=["/*"]).get("/health").body == "none"
        assert tenants.current.slug == "acme"


def test_invalid_public_paths_are_refused(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    with pytest.raises(TypeError, match="Pass a list"):
        serve(current_or_none(tenants), public="/health")
    with pytest.raises(ValueError, match="'health' is not a path"):
        serve(current_or_none(tenants), public=["/", "health"])


def fail_if_called(_: Request) -> str:
    pytest.fail("a public path needs no resolver")


def test_a_public_path_is_served_whatever_the_request_names(
    tenants: Tenancy, serve: Callable[..., Web], kind: Kind
) -> None:
    tenants.create("acme")
    tenants.create("off")
    tenants.suspend("off")
    web = serve(current_or_none(tenants), by_host("example.com"), public=["/health", "/sign-up"])
    for host in ("unknown.example.com", "off.example.com", "acme.example.com", "a..b.example.com", "example.com"):
        for path in ("/health", "/sign-up"):
            answer = web.get(path, headers={"host": host})
            assert (answer.status, answer.body) == (200, "none"), host
    assert web.get("/", headers={"host": "off.example.com"}).status == 403
    assert serve(current_or_none(tenants), fail_if_called, public=["/health"]).get("/health").body == "none"
    # The registry is not queried either: it does not exist here.
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": f"{tenants.settings.url}.nowhere"}) as away:
        web = Web(kind, away, current_or_none(away), by_host("example.com"), public=["/health"])
        assert web.get("/health", headers={"host": "acme.example.com"}).body == "none"


@pytest.mark.parametrize("host", ["shop.example.com", "SHOP.example.com.:80", "localhost", "10.0.0.7:8080"])
def test_a_public_host_is_served_without_a_tenant(host: str, tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("shop")
    hosts = ["Shop.example.com:443", "localhost", "10.0.0.7"]
    web = serve(current_or_none(tenants), fail_if_called, public_hosts=hosts)
    for path in ("/sign-up", "/"):
        assert web.get(path, headers={"host": host}).body == "none"
    web = serve(current_or_none(tenants), by_host("example.com"), public_hosts=["www.example.com", "münchen.example"])
    assert web.get("/", headers={"host": "xn--mnchen-3ya.example"}).body == "none"
    assert web.get("/", headers={"host": "shop.example.com"}).body == "shop"
    assert web.get("/", headers={"host": "www.example.com, shop.example.com"}).status == 404


@pytest.mark.parametrize("hosts", ["app.example.com", ["https://app.example.com"], ["*.example.com"], [5], [""]])
def test_invalid_public_hosts_are_refused(hosts: Any, tenants: Tenancy, serve: Callable[..., Web]) -> None:
    with pytest.raises(ValueError, match="Pass"):
        serve(current_or_none(tenants), public_hosts=hosts)


# -- refused --


def assert_reveals_nothing(answer: Answer, *words: str) -> None:
    """Verify that a response is a problem in JSON, and contains none of the words."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem = json.loads(answer.body)
    assert set(problem) == {"title", "status", "detail", "code"}
    assert problem["status"] == answer.status
    told = f"{answer.headers} {answer.body}".lower()
    assert [word for word in (*words, "tenan", "slug") if word.lower() in told] == []


@pytest.mark.parametrize("path", ["/t/acmee/", "/t/%00/", "/t/..%20/", "/t/%FF%FE/", f"/t/{'a' * 101}/", "/t/-/", "/x"])
def test_unknown_and_malformed_slugs_are_answered_alike(path: str, tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    web = serve(slug_of_current(tenants))
    answer = web.get(path)
    assert answer.status == 404
    assert_reveals_nothing(answer, "acme")
    assert answer == web.get("/t/somewhere-else/")


def test_a_malformed_header_gets_the_same_response_as_an_unknown_one(
    tenants: Tenancy, serve: Callable[..., Web]
) -> None:
    tenants.create("acme")
    web = serve(slug_of_current(tenants), by_header("X-Tenant"))
    answers = [web.get("/", headers={"x-tenant": value}) for value in ("acme,acme", "", "%FF", "unknown")]
    assert [answer.status for answer in answers] == [404] * 4
    assert answers.count(answers[0]) == 4


def make_provisioning(tenants: Tenancy) -> None:
    placement = Placement(None, "acme_0000_")
    tenants.init()
    tenants.fleet.registry.add(
        [Tenant.requested(TenantRequest(slug="acme", name="Acme"), uuid4(), "acme", placement, Versions())], None
    )  # as left by a process that died


def make_suspended(tenants: Tenancy) -> None:
    tenants.create("acme")
    tenants.suspend("acme", reason=SECRET)


def make_archived(tenants: Tenancy) -> None:
    tenants.create("acme")
    tenants.archive("acme", reason=SECRET)


def make_deleted(tenants: Tenancy) -> None:
    tenants.create("acme")
    tenants.delete("acme", reason=SECRET)


@pytest.mark.parametrize("make", [make_provisioning, make_suspended, make_archived, make_deleted])
def test_an_unavailable_tenant_is_refused(
    make: Callable[[Tenancy], None], tenants: Tenancy, serve: Callable[..., Web]
) -> None:
    make(tenants)
    answer = serve(slug_of_current(tenants)).get("/t/acme/")
    assert answer.status == 403
    assert_reveals_nothing(answer, "acme", SECRET, "suspend", "archiv", "delet")
    assert answer == serve(raise_purged).get("/t/acme/")


def raise_purged(*_: str) -> str:
    msg = "The tenant 'acme' has been purged."
    raise TenantPurged(msg, tenant="acme")


def test_a_purged_tenant_is_unknown(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    tenants.purge("acme")
    web = serve(slug_of_current(tenants))
    assert web.get("/t/acme/") == web.get("/t/unknown/")


def test_reads_are_served_for_a_readable_tenant(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    tenants.application(Kennel, "acme").register("Fido")
    tenants.suspend("acme", reads=True)
    web = serve(lambda _, path: str((CALLS[path])(tenants.application(Kennel))))
    assert web.get("/t/acme/read").body == "1"
    answer = web.get("/t/acme/write")
    assert answer.status == 403
    assert_reveals_nothing(answer, "acme")


CALLS: dict[str, Callable[[Kennel], object]] = {
    "/read": lambda kennel: kennel.recorder.max_notification_id(),
    "/write": lambda kennel: kennel.register("Rex"),
}


def test_a_head_request_is_refused_without_a_body(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    web = serve(slug_of_current(tenants))
    answer = web.get("/t/unknown/", method="HEAD")
    assert (answer.status, answer.body) == (404, "")
    assert answer.headers == web.get("/t/unknown/").headers


def test_an_error_of_the_application_is_raised(tenants: Tenancy, serve: Callable[..., Web]) -> None:
    tenants.create("acme")
    with pytest.raises(TenantNotFound):
        serve(lambda *_: tenants["unknown"].slug).get("/t/acme/")


def test_error_response_accepts_refusals_only() -> None:
    error = NoCurrentTenant("There is no current tenant here.")
    with pytest.raises(NoCurrentTenant):
        error_response(error)


def test_an_unreachable_registry_is_unavailable(
    kind: Kind, own_postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": own_postgres_server.url()}) as tenants:
        tenants.create("acme")
        tenants.create("globex")
        web = Web(kind, tenants, slug_of_current(tenants), by_path("/t"))
        assert web.get("/t/acme/").status == 200
        own_postgres_server.stop("immediate")
        answer = web.get("/t/globex/")
        assert answer.status == 503
        assert_reveals_nothing(answer, "acme", "globex", "postgres", "127.0.0.1")
        assert answer.headers["retry-after"] == "1"
        assert "The registry does not answer" in caplog.text
        # Cached tenants are trusted for some time.
        assert web.get("/t/acme/").status == 200
