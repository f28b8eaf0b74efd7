"""The web service: sign-up at app.HOST, one host for each business, and the domains that they bring."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field, StringConstraints

from booking.agenda import KeepAgenda
from booking.domain import Appointments, Catalogue, SlotTaken
from booking.fleet import make_fleet
from booking.plans import PLANS, metadata_of
from tenancy import Tenancy
from tenancy.errors import InvalidSlug, TenantExists, TenantSuspended
from tenancy.frameworks.fastapi import CurrentTenant, TenantApplication, install
from tenancy.web.resolvers import by_domain, by_header, by_host, first
from tenancy.web.responses import redirect

__all__ = ["make_app"]


class SignUp(BaseModel):
    """A new business."""

    slug: str
    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    plan: str = "free"


class Booking(BaseModel):
    """What a customer wants."""

    customer: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    offer: str = "Consultation"
    starts_at: datetime = Field(description="local time of the business")


class NewDomain(BaseModel):
    """A host name that a business brings."""

    host: str


def make_app(tenants: Tenancy | None = None, host: str | None = None) -> FastAPI:
    """Return the service: ``uvicorn --factory booking.web:make_app``.

    ``host`` is the domain below which each business has its host, by default BOOKING_HOST.
    """
    fleet = tenants or make_fleet()
    host = host or os.environ.get("BOOKING_HOST", "localhost")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if tenants is None:
            fleet.close()

    app = FastAPI(title="Booking", lifespan=lifespan)
    install(
        app,
        tenants=fleet,
        resolver=first(by_header("X-Tenant"), by_domain(), by_host(host)),
        public=["/health"],
        public_hosts=[f"app.{host}"],
        errors={TenantSuspended: redirect(f"https://app.{host}/billing")},
    )

    @app.get("/health")
    async def health() -> str:
        """Answer that the process is alive."""
        return "ok"

    @app.post("/sign-up", status_code=201)
    def sign_up(wanted: SignUp) -> dict[str, str]:
        """Create a business: its tables, and what the hooks put there."""
        if wanted.plan not in PLANS:
            raise HTTPException(422, f"There is no plan {wanted.plan!r}. Choose one of: {', '.join(PLANS)}.")
        try:
            tenant = fleet.create(wanted.slug, name=wanted.name, metadata=metadata_of(wanted.plan))
        except TenantExists as error:
            raise HTTPException(409, "This name is taken. Choose another one.") from error
        except InvalidSlug as error:
            raise HTTPException(422, error.message) from error
        return {"url": f"https://{tenant.slug}.{host}"}

    @app.get("/offers/{name}")
    def show_offer(name: str, catalogue: TenantApplication[Catalogue]) -> dict[str, int]:
        """Show how long a service takes."""
        minutes = catalogue.minutes_of(name)
        if minutes is None:
            raise HTTPException(404, f"There is no offer {name!r}.")
        return {"minutes": minutes}

    @app.post("/appointments", status_code=201)
    def book(
        wanted: Booking, appointments: TenantApplication[Appointments], catalogue: TenantApplication[Catalogue]
    ) -> dict[str, UUID]:
        """Book a slot."""
        if catalogue.minutes_of(wanted.offer) is None:
            raise HTTPException(422, f"There is no offer {wanted.offer!r}.")
        try:
            return {"id": appointments.book(wanted.customer, wanted.offer, wanted.starts_at)}
        except SlotTaken as error:
            raise HTTPException(409, "This time is taken. Choose another one.") from error

    @app.delete("/appointments/{appointment_id}", status_code=204)
    def cancel(appointment_id: UUID, appointments: TenantApplication[Appointments]) -> None:
        """Free a slot."""
        appointments.cancel(appointment_id)

    @app.get("/agenda/{day}")
    def show_agenda(day: date, tenant: CurrentTenant) -> list[dict[str, str]]:
        """Show who comes on a day. The runner keeps this up to date, within milliseconds."""
        view = fleet.projection(KeepAgenda, tenant).view
        return [
            {"time": f"{starts_at:%H:%M}", "customer": customer, "offer": offer}
            for _, starts_at, customer, offer in view.of_day(day)
        ]

    @app.post("/domains", status_code=201)
    def add_domain(wanted: NewDomain, tenant: CurrentTenant) -> dict[str, str]:
        """Claim a host name. Whoever owns it publishes the token; an operator runs ``tenancy domains verify``."""
        domain = fleet.domains.add(tenant, wanted.host)
        return {"host": domain.host, "token": domain.token}

    return app
