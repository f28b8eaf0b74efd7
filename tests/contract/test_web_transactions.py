"""One transaction per request, under FastAPI and Starlette: the recommended ways, and the refused ones.

Each way answers 200 for Fido and 409 for a cat, for which nothing must be committed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Final

import httpx
import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.invoices import Invoice, invoices

pytestmark = pytest.mark.parametrize("database_url", ["file", "psycopg2", "psycopg", "pg8000"], indirect=True)

Way = Callable[[FastAPI, TrainingSchool, sa.Engine], None]


def record(school: TrainingSchool, session: Session, name: str, *, passes_session: bool = False) -> str:
    """Register a dog with an invoice; refuse a cat afterwards."""
    session.add(Invoice(number=1))
    school.save(Dog(name), **({"session": session} if passes_session else {}))
    if name == "Cat":
        raise HTTPException(409)
    return name


def async_dependency(school: TrainingSchool) -> Callable[[], AsyncIterator[Session]]:
    async def begin() -> AsyncIterator[Session]:
        with school.recorder.transaction() as session:
            yield session

    return begin


# -- recommended --


def in_the_endpoint(app: FastAPI, school: TrainingSchool, _: sa.Engine) -> None:
    @app.post("/{name}")
    def register(name: str) -> str:
        with school.recorder.transaction() as session:
            return record(school, session, name)


def in_the_async_endpoint(app: FastAPI, school: TrainingSchool, _: sa.Engine) -> None:
    @app.post("/{name}")
    async def register(name: str) -> str:
        with school.recorder.transaction() as session:
            return record(school, session, name)


def in_async_dependency(app: FastAPI, school: TrainingSchool, _: sa.Engine) -> None:
    @app.post("/{name}")
    async def register(name: str, session: Annotated[Session, Depends(async_dependency(school))]) -> str:
        return record(school, session, name)


def with_session_of_the_user(app: FastAPI, school: TrainingSchool, engine: sa.Engine) -> None:
    def begin() -> Iterator[Session]:
        with Session(engine) as session, session.begin():
            yield session

    @app.post("/{name}")
    def register(name: str, session: Annotated[Session, Depends(begin)]) -> str:
        return record(school, session, name, passes_session=True)


ADVISED: Final[list[Way]] = [
    in_the_endpoint,
    in_the_async_endpoint,
    in_async_dependency,
    with_session_of_the_user,
]

# -- refused --


def in_dependency(app: FastAPI, school: TrainingSchool, _: sa.Engine) -> None:
    def begin() -> Iterator[Session]:
        with school.recorder.transaction() as session:
            yield session

    @app.post("/{name}")
    def register(name: str, session: Annotated[Session, Depends(begin)]) -> str:
        return record(school, session, name)


def in_async_dependency_of_a_sync_endpoint(app: FastAPI, school: TrainingSchool, _: sa.Engine) -> None:
    @app.post("/{name}")
    def register(name: str, session: Annotated[Session, Depends(async_dependency(school))]) -> str:
        return record(school, session, name)


def in_http_middleware(app: FastAPI, school: TrainingSchool, _: sa.Engine) -> None:
    class Middleware(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            with school.recorder.transaction() as request.state.session:
                return await call_next(request)

    @app.post("/{name}")
    async def register(name: str, request: Request) -> str:
        return record(school, request.state.session, name)

    app.add_middleware(Middleware)


REFUSED: Final[list[Way]] = [in_dependency, in_async_dependency_of_a_sync_endpoint, in_http_middleware]

# -- the requests --


@pytest.fixture
def school(database_url: str, engine: sa.Engine) -> Iterator[TrainingSchool]:  # noqa: ARG001 (creates the user's tables)
    with TrainingSchool({"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": database_url}) as school:
        yield school


def post(app: FastAPI, name: str) -> int:
    async def main() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://school") as client:
            return (await client.post(f"/{name}")).status_code

    return asyncio.run(main())


@pytest.mark.parametrize("way", ADVISED)
def test_recommended_way_commits_all_or_nothing(way: Way, school: TrainingSchool, engine: sa.Engine) -> None:
    app = FastAPI()
    way(app, school, engine)
    assert post(app, "Cat") == 409
    assert (school.names(), invoices(engine)) == ([], [])
    assert post(app, "Fido") == 200
    assert (school.names(), invoices(engine)) == (["Fido"], [1])


@pytest.mark.parametrize("way", REFUSED)
def test_way_that_would_commit_partially_is_refused(way: Way, school: TrainingSchool, engine: sa.Engine) -> None:
    app = FastAPI()
    way(app, school, engine)
    for name in ("Fido", "Cat"):
        with pytest.raises(ProgrammingError, match=r"with recorder.transaction\(\) as session"):
            post(app, name)
        assert (school.names(), invoices(engine)) == ([], [])
