"""The booking service, from the sign-up of a business to its end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from booking.domain import Catalogue, Reminders
from booking.plans import metadata_of
from fastapi.testclient import TestClient

from tenancy import Tenancy, Tenant
from tenancy.testing.plugin import AsTenant, NewTenant

MONDAY = "2026-12-07"
AT_NINE = {"customer": "Ada", "starts_at": f"{MONDAY}T09:00:00"}


def test_sign_up_creates_a_business_with_an_offer(client: TestClient, tenants: Tenancy) -> None:
    response = client.post("/sign-up", json={"slug": "Salon", "name": 'Ünï-cödé "x"', "plan": "pro"})
    assert (response.status_code, response.json()) == (201, {"url": "https://salon.example.com"})
    salon = tenants["salon"]
    assert (salon.name, salon.metadata["plan"]) == ('Ünï-cödé "x"', "pro")
    assert salon.get(Catalogue).minutes_of("Consultation") == 30
    assert client.get("https://salon.example.com/offers/Consultation").json() == {"minutes": 30}


@pytest.mark.parametrize(
    ("sign_up", "status"),
    [
        ({"slug": "tenant", "name": "Taken"}, 409),
        ({"slug": "admin", "name": "Reserved"}, 422),
        ({"slug": "no spaces", "name": "Invalid"}, 422),
        ({"slug": "salon", "name": "Salon", "plan": "gold"}, 422),
    ],
)
def test_impossible_sign_ups_are_refused(
    sign_up: dict[str, str], status: int, client: TestClient, tenant: Tenant
) -> None:
    assert client.post("/sign-up", json=sign_up).status_code == status


def test_a_slot_is_booked_once(client: TestClient, tenant: Tenant, as_tenant: AsTenant) -> None:
    with as_tenant(client, tenant), ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda _: client.post("/appointments", json=AT_NINE).status_code, range(8)))
    assert sorted(answers) == [201] + [409] * 7


def test_agenda_follows_bookings(
    client: TestClient, tenant: Tenant, as_tenant: AsTenant, follow: Callable[[], int]
) -> None:
    with as_tenant(client, tenant):
        booked = client.post("/appointments", json=AT_NINE).json()["id"]
        client.post("/appointments", json={"customer": "Bob", "starts_at": f"{MONDAY}T10:30:00"})
        follow()
        assert client.get(f"/agenda/{MONDAY}").json() == [
            {"time": "09:00", "customer": "Ada", "offer": "Consultation"},
            {"time": "10:30", "customer": "Bob", "offer": "Consultation"},
        ]
        client.delete(f"/appointments/{booked}")
        client.post("/appointments", json={**AT_NINE, "customer": "Cleo"})
        follow()
        assert [slot["customer"] for slot in client.get(f"/agenda/{MONDAY}").json()] == ["Cleo", "Bob"]
    assert tenant.get(Reminders).count() == 3


def test_businesses_share_nothing(
    client: TestClient, new_tenant: NewTenant, as_tenant: AsTenant, follow: Callable[[], int]
) -> None:
    for slug in ("salon", "garage"):
        with as_tenant(client, new_tenant(slug)):
            assert client.post("/appointments", json={**AT_NINE, "customer": slug}).status_code == 201
    follow()
    for slug in ("salon", "garage"):
        with as_tenant(client, slug):
            assert [slot["customer"] for slot in client.get(f"/agenda/{MONDAY}").json()] == [slug]


def test_a_domain_serves_once_it_is_verified(client: TestClient, tenants: Tenancy, tenant: Tenant) -> None:
    claimed = client.post(f"https://{tenant.slug}.example.com/domains", json={"host": "Book.Salon.Example"}).json()
    assert client.get("https://book.salon.example/offers/Consultation").status_code == 404
    tenants.domains.verify(tenant, claimed["host"], claimed["token"])
    assert client.get("https://book.salon.example/offers/Consultation").json() == {"minutes": 30}


def test_a_suspended_business_pays_first(client: TestClient, tenants: Tenancy, tenant: Tenant) -> None:
    tenants.suspend(tenant, reason="invoice 4711")
    url = f"https://{tenant.slug}.example.com"
    browser = client.get(f"{url}/agenda/{MONDAY}", headers={"accept": "text/html"}, follow_redirects=False)
    assert (browser.status_code, browser.headers["location"]) == (303, "https://app.example.com/billing")
    program = client.get(f"{url}/agenda/{MONDAY}", headers={"accept": "application/json"})
    assert (program.status_code, program.json()["code"]) == (403, "unavailable")
    assert client.get(f"{url}/health").json() == "ok"


def test_the_free_plan_has_a_limit(
    client: TestClient, tenants: Tenancy, new_tenant: NewTenant, as_tenant: AsTenant
) -> None:
    new_tenant("salon", metadata=metadata_of("free"))
    with as_tenant(client, "salon"):
        answers = [
            client.post("/appointments", json={**AT_NINE, "starts_at": f"{MONDAY}T09:{minute}:00"})
            for minute in range(10, 60)
        ]
        refused = [answer for answer in answers if answer.status_code != 201]
        assert {answer.status_code for answer in refused} == {429}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
