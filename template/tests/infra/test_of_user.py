# Rung's file: advancing to another stage may change it.
"""of_user: the row of the logged-in user, read by the statement that finds the session."""

from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from fastapi import Depends, FastAPI, Request
from httpx import AsyncClient
from pydantic import BaseModel
from sqlalchemy import Uuid, bindparam, func, literal, null, select

from app.infra.database_use import this_request
from app.infra.reads import Query
from app.infra.sessions import CurrentUser, Sessions, User, current_user, of_user
from dev.pytest_plugin import Services
from tests.infra.conftest import bare_app

ADA, NOBODYS = uuid4(), UUID(int=0)
USER = bindparam("user_id", type_=Uuid())


class Name(BaseModel):
    user_id: UUID
    is_there: bool | None
    text: str


# Its columns are called like those of the statement around it.
NAME = Query(
    select(
        USER.label("user_id"),
        null().label("is_there"),
        func.concat("Ada", literal("!")).label("text"),
    ),
    Name,
    optional=[USER != NOBODYS],
)
NOTHING = Query(select(null().label("nothing")).where(USER != NOBODYS), dict)
IN_PARTS = select(USER.label("id")).cte()
FROM_PARTS = Query(select(select(IN_PARTS.c.id).scalar_subquery().label("id")), dict)

MaybeNothing = Annotated[dict[str, Any] | None, Depends(of_user(NOTHING))]
name_of = of_user(NAME)
MaybeName = Annotated[Name | None, Depends(name_of)]


@pytest.fixture
def app(services: Services) -> FastAPI:
    return name_app()


def name_app() -> FastAPI:
    """With the settings of the environment."""
    app = bare_app()

    @app.post("/login/{user_id}")
    async def log_in(sessions: Sessions, user_id: UUID) -> None:
        await sessions.start(user_id)

    @app.post("/logout")
    async def log_out(sessions: Sessions) -> None:
        await sessions.end()

    @app.get("/name")
    async def name(found: MaybeName) -> dict[str, Any]:
        return {"found": found, "calls": this_request.get().calls}

    @app.get("/before-others")
    async def before(found: MaybeName, user: CurrentUser) -> dict[str, Any]:
        return {"found": found, "calls": this_request.get().calls}

    @app.get("/behind-others")
    async def behind(user: CurrentUser, found: MaybeName) -> dict[str, Any]:
        return {"found": found, "calls": this_request.get().calls}

    @app.get("/as/{other}")
    async def as_other(request: Request, mine: MaybeName, other: UUID) -> Name | None:
        return await name_of(request, User(other))

    @app.get("/others")
    async def others(
        nothing: MaybeNothing,
        parts: Annotated[dict[str, Any] | None, Depends(of_user(FROM_PARTS))],
        found: MaybeName,
    ) -> list[Any]:
        return [nothing, parts, found]

    return app


def named(user_id: UUID) -> dict[str, Any]:
    return {"user_id": str(user_id), "is_there": None, "text": "Ada!"}


async def ask(client: AsyncClient, path: str = "/name") -> Any:
    answer = await client.get(path)
    return answer.json() if answer.status_code == 200 else answer.status_code


@pytest.mark.parametrize("path", ["/name", "/before-others"])
async def test_one_statement_finds_the_session_and_the_row(client: AsyncClient, path: str) -> None:
    await client.post(f"/login/{ADA}")

    assert await ask(client, path) == {"found": named(ADA), "calls": 1}


async def test_behind_current_user_the_row_is_the_same(client: AsyncClient) -> None:
    await client.post(f"/login/{ADA}")

    assert (await ask(client, "/behind-others"))["found"] == named(ADA)


async def test_a_user_may_have_no_row(client: AsyncClient) -> None:
    await client.post(f"/login/{NOBODYS}")

    assert await ask(client) == {"found": None, "calls": 1}


async def test_a_visitor_who_is_not_logged_in_has_no_row(client: AsyncClient) -> None:
    assert await ask(client) == 401
    await client.post(f"/login/{ADA}")
    await client.post("/logout")
    assert await ask(client) == 401


async def test_each_dependency_has_the_row_of_its_own_query(client: AsyncClient) -> None:
    await client.post(f"/login/{ADA}")

    assert await ask(client, "/others") == [{"nothing": None}, {"id": str(ADA)}, named(ADA)]


async def test_another_user_of_a_test_has_their_own_row(app: FastAPI, client: AsyncClient) -> None:
    grace = uuid4()
    app.dependency_overrides[current_user] = lambda: User(grace)
    await client.post(f"/login/{ADA}")

    assert await ask(client) == {"found": named(grace), "calls": 1}


async def test_the_row_belongs_to_the_user_that_is_asked_for(client: AsyncClient) -> None:
    grace = uuid4()
    await client.post(f"/login/{ADA}")

    assert await ask(client, f"/as/{grace}") == named(grace)


async def test_a_query_that_does_not_take_the_user_is_refused(
    app: FastAPI, client: AsyncClient
) -> None:
    anybody = of_user(Query(select(literal("Grace").label("name")), dict))

    @app.get("/anybody")
    async def wrong(found: Annotated[object, Depends(anybody)]) -> None: ...

    await client.post(f"/login/{ADA}")

    assert (await client.get("/anybody")).status_code == 500
