# Rung's file: advancing to another stage may change it.
"""Clients that carry their session's token in a header and keep no cookie."""

from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI, HTTPException
from httpx import AsyncClient

from app.infra import session_tokens
from app.infra.session_rows import Session
from app.infra.session_tokens import COOKIE
from app.infra.sessions import CurrentUser, MaybeUser, Sessions
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve, bare_app

ADA = uuid4()


@pytest.fixture
def app(services: Services) -> FastAPI:
    return token_app()


def token_app() -> FastAPI:
    app = bare_app()

    @app.post("/tokens/{user_id}")
    async def log_in(sessions: Sessions, user_id: UUID) -> str:
        return (await sessions.start(user_id, cookie=False)).token

    @app.post("/session/{user_id}")
    async def log_in_with_cookie(sessions: Sessions, user_id: UUID) -> str:
        return (await sessions.start(user_id)).token

    @app.delete("/session")
    async def log_out(sessions: Sessions) -> None:
        await sessions.end()

    @app.delete("/other-sessions")
    async def log_out_elsewhere(sessions: Sessions, user: CurrentUser) -> None:
        await sessions.end_others(user.id)

    @app.get("/me")
    async def me(user: CurrentUser) -> UUID:
        return user.id

    @app.get("/front-page")
    async def front_page(user: MaybeUser) -> UUID | None:
        return user.id if user else None

    return app


async def token(client: AsyncClient, user: UUID = ADA) -> dict[str, str]:
    """The header that carries the token of a new session."""
    answer = await client.post(f"/tokens/{user}")
    assert "set-cookie" not in answer.headers or COOKIE not in answer.headers["set-cookie"]
    return {"Authorization": f"Bearer {answer.json()}"}


async def test_a_token_is_accepted_in_place_of_the_cookie(client: AsyncClient) -> None:
    ada = await token(client)

    assert (await client.get("/me", headers=ada)).json() == str(ADA)
    assert (await client.get("/me")).status_code == 401


async def test_each_401_names_the_schemes_that_are_accepted(
    app: FastAPI, client: AsyncClient
) -> None:
    @app.get("/elsewhere")
    async def elsewhere() -> None:
        raise HTTPException(401)

    @app.get("/by-password")
    async def by_password() -> None:
        raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})

    for path, scheme in (("me", "Bearer"), ("elsewhere", "Bearer"), ("by-password", "Basic")):
        headers = (await client.get(f"/{path}")).headers
        assert headers.get_list("www-authenticate") == [scheme]


async def test_a_route_may_know_who_is_logged_in_without_asking_for_it(client: AsyncClient) -> None:
    ada = await token(client)

    assert (await client.get("/front-page", headers=ada)).json() == str(ADA)
    assert (await client.get("/front-page")).json() is None
    unknown = {"Authorization": "Bearer unknown"}
    assert (await client.get("/front-page", headers=unknown)).json() is None


async def test_a_route_that_asks_in_both_ways_looks_the_session_up_once(
    app: FastAPI, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []

    @app.get("/both")
    async def both(user: CurrentUser, same: MaybeUser) -> bool:
        return user == same

    ada = await token(client)
    find = app.state.session_store.find

    async def counted(token_hash: bytes) -> Session | None:
        looked_up.append(token_hash)
        found: Session | None = await find(token_hash)
        return found

    monkeypatch.setattr(app.state.session_store, "find", counted)
    assert (await client.get("/both", headers=ada)).json() is True

    assert len(looked_up) == 1


async def test_logging_out_by_token_is_final(client: AsyncClient) -> None:
    ada = await token(client)
    await client.delete("/session", headers=ada)

    assert (await client.get("/me", headers=ada)).status_code == 401


async def test_a_browser_that_gets_a_token_for_a_script_stays_logged_in(
    client: AsyncClient,
) -> None:
    await client.post(f"/session/{ADA}")
    script = await token(client)

    assert (await client.get("/me")).json() == str(ADA)
    client.cookies.clear()
    assert (await client.get("/me", headers=script)).json() == str(ADA)


async def test_a_new_token_replaces_the_one_that_the_client_carries(client: AsyncClient) -> None:
    old = await token(client)
    client.headers.update(old)
    new = await token(client)

    answers = [await client.get("/me", headers=one) for one in (old, new)]
    assert [answer.status_code for answer in answers] == [401, 200]


async def test_a_token_outlives_the_end_of_the_other_sessions(client: AsyncClient) -> None:
    phone, laptop = await token(client), await token(client)
    grace = await token(client, uuid4())
    await client.delete("/other-sessions", headers=phone)

    answers = [await client.get("/me", headers=one) for one in (phone, laptop, grace)]
    assert [answer.status_code for answer in answers] == [200, 401, 200]


async def test_ending_the_other_sessions_gives_the_browser_a_new_cookie(
    client: AsyncClient,
) -> None:
    await client.post(f"/session/{ADA}")
    before = client.cookies[COOKIE]
    await client.delete("/other-sessions")

    assert client.cookies[COOKIE] != before
    assert (await client.get("/me")).json() == str(ADA)
    client.cookies.clear()
    client.cookies.set(COOKIE, before)
    assert (await client.get("/me")).status_code == 401


@pytest.mark.parametrize(
    "carried",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer two words",
        "Bearer " + "x" * 5000,
        "Bearer ünknown",
        "Bearer \x00",
        "x" * 60_000,
    ],
)
async def test_any_other_authorization_is_a_401(client: AsyncClient, carried: str) -> None:
    headers = {b"Authorization": carried.encode()}
    assert (await client.get("/me", headers=headers)).status_code == 401


async def test_a_token_takes_precedence_over_a_cookie(client: AsyncClient) -> None:
    grace = uuid4()
    await client.post(f"/session/{grace}")
    ada = (await client.post(f"/tokens/{ADA}", headers={"Cookie": ""})).json()

    answer = await client.get("/me", headers={"Authorization": f"Bearer {ada}"})
    assert answer.json() == str(ADA)


async def test_a_team_can_add_a_scheme_and_a_header(
    app: FastAPI, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_tokens, "_carriers", dict(session_tokens._carriers))
    monkeypatch.setitem(session_tokens.CHALLENGE, "WWW-Authenticate", "Bearer")
    session_tokens._carriers[b"authorization"] = [*session_tokens._carriers[b"authorization"]]
    session_tokens.accept("Authorization", "Token")
    session_tokens.accept("X-Api-Key")
    async with serve(app) as client:
        value = (await token(client))["Authorization"].removeprefix("Bearer ")

        for headers in (
            {"Authorization": f"Token {value}"},
            {"Authorization": f"token {value}"},
            {"X-Api-Key": value},
            {"Authorization": f"Bearer {value}"},
        ):
            assert (await client.get("/me", headers=headers)).json() == str(ADA)
        refused = await client.get("/me", headers={"Authorization": f"Digest {value}"})
        assert refused.headers["www-authenticate"] == "Bearer, Token"


def test_openapi_describes_both_ways_to_log_in(app: FastAPI) -> None:
    described = app.openapi()

    assert described["components"]["securitySchemes"] == {
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
        "token": {"type": "http", "scheme": "bearer"},
    }
    assert described["paths"]["/me"]["get"]["security"] == [{"session": []}, {"token": []}]


def test_openapi_says_where_nobody_needs_to_log_in(app: FastAPI) -> None:
    @app.get("/both")
    async def both(same: MaybeUser, user: CurrentUser) -> bool:
        return same == user

    paths = app.openapi()["paths"]

    assert paths["/front-page"]["get"]["security"] == [{"session": []}, {"token": []}, {}]
    assert paths["/both"]["get"]["security"] == [{"session": []}, {"token": []}]
