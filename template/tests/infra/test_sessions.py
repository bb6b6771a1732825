# Rung's file: advancing to another stage may change it.
import hashlib
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import func, select, update

from app.infra.database import Database
from app.infra.sessions import COOKIE, CurrentUser, LoginSession, Sessions
from tests.infra.conftest import Serve

ADA = uuid4()


@pytest.fixture
def shop(bare: FastAPI) -> FastAPI:
    @bare.post("/login/{user_id}")
    async def log_in(sessions: Sessions, user_id: UUID) -> None:
        await sessions.start(user_id)

    @bare.post("/logout")
    async def log_out(sessions: Sessions) -> None:
        await sessions.end()

    @bare.post("/logout-everywhere/{user_id}")
    async def log_out_everywhere(sessions: Sessions, user_id: UUID) -> None:
        await sessions.end_all(user_id)

    @bare.get("/me")
    async def me(user: CurrentUser) -> UUID:
        return user.id

    return bare


async def age(shop: FastAPI, **ages: timedelta) -> None:
    database: Database = shop.state.database
    columns = {name: getattr(LoginSession, name) - age for name, age in ages.items()}
    async with database.transaction() as write:
        await write.execute(update(LoginSession).values(columns))


async def who(client: AsyncClient) -> str | int:
    answer = await client.get("/me")
    return str(answer.json()) if answer.status_code == 200 else answer.status_code


async def test_the_cookie_cannot_be_read_by_scripts_or_sent_in_the_clear(
    shop: FastAPI, serve: Serve
) -> None:
    async with serve(shop) as client:
        answer = await client.post(f"/login/{ADA}")

        attributes = answer.headers["set-cookie"].split("; ")[1:]
        assert set(attributes) == {
            "HttpOnly",
            "Max-Age=7776000",
            "Path=/",
            "SameSite=lax",
            "Secure",
        }
        assert await who(client) == str(ADA)


async def test_only_the_hash_of_256_random_bits_is_stored(shop: FastAPI, serve: Serve) -> None:
    async with serve(shop) as client:
        await client.post(f"/login/{ADA}")
        token = client.cookies[COOKIE]

        async with shop.state.database.transaction() as write:
            stored = await write.scalar(select(LoginSession.token_hash))

    assert len(token) == 43
    assert stored == hashlib.sha256(token.encode()).digest()


@pytest.mark.parametrize("made_up", ["", "x" * 43, "ünknown", "x" * 4000])
async def test_an_id_that_we_did_not_give_out_is_refused(
    shop: FastAPI, serve: Serve, made_up: str
) -> None:
    async with serve(shop) as client:
        header = {b"Cookie": f"{COOKIE}={made_up}".encode()}
        assert (await client.get("/me", headers=header)).status_code == 401


async def test_a_planted_id_is_worth_nothing_after_the_login(shop: FastAPI, serve: Serve) -> None:
    async with serve(shop) as client:
        client.cookies.set(COOKIE, "p" * 43)
        answer = await client.post(f"/login/{ADA}")

        assert answer.cookies[COOKIE] != "p" * 43
        client.cookies.clear()
        client.cookies.set(COOKIE, "p" * 43)
        assert await who(client) == 401


async def test_logging_in_again_ends_the_session_that_was_presented(
    shop: FastAPI, serve: Serve
) -> None:
    async with serve(shop) as client:
        await client.post(f"/login/{ADA}")
        first = client.cookies[COOKIE]
        await client.post(f"/login/{ADA}")

        assert client.cookies[COOKIE] != first
        assert await who(client) == str(ADA)
        client.cookies.clear()
        client.cookies.set(COOKIE, first)
        assert await who(client) == 401


async def test_logging_out_is_final(shop: FastAPI, serve: Serve) -> None:
    async with serve(shop) as client:
        await client.post(f"/login/{ADA}")
        token = client.cookies[COOKIE]
        await client.post("/logout")
        assert COOKIE not in client.cookies

        client.cookies.set(COOKIE, token)
        assert await who(client) == 401


async def test_logging_out_everywhere_leaves_other_people_alone(
    shop: FastAPI, serve: Serve
) -> None:
    grace = uuid4()
    async with serve(shop) as client:
        tokens = []
        for user in (ADA, ADA, grace):
            client.cookies.clear()
            await client.post(f"/login/{user}")
            tokens.append(client.cookies[COOKIE])

        await client.post(f"/logout-everywhere/{ADA}")

        found = []
        for token in tokens:
            client.cookies.clear()
            client.cookies.set(COOKIE, token)
            found.append(await who(client))
    assert found == [401, 401, str(grace)]


async def test_a_session_ends_when_nobody_uses_it(shop: FastAPI, serve: Serve) -> None:
    async with serve(shop) as client:
        await client.post(f"/login/{ADA}")
        await age(shop, seen_at=timedelta(days=13))
        assert await who(client) == str(ADA)

        # That visit counted, so the clock has started anew.
        await age(shop, seen_at=timedelta(days=13))
        assert await who(client) == str(ADA)

        await age(shop, seen_at=timedelta(days=15))
        assert await who(client) == 401


async def test_a_visit_is_noted_every_five_minutes_at_most(shop: FastAPI, serve: Serve) -> None:
    async with serve(shop) as client:
        await client.post(f"/login/{ADA}")
        noted = []
        for minutes in (4, 2):
            await age(shop, seen_at=timedelta(minutes=minutes))
            before = await seen(shop)
            await client.get("/me")
            noted.append(await seen(shop) != before)

    assert noted == [False, True]


async def seen(shop: FastAPI) -> object:
    async with shop.state.database.transaction() as write:
        return await write.scalar(select(LoginSession.seen_at))


async def test_a_session_ends_however_much_it_is_used(shop: FastAPI, serve: Serve) -> None:
    async with serve(shop) as client:
        await client.post(f"/login/{ADA}")
        await age(shop, expires_at=timedelta(days=89))
        assert await who(client) == str(ADA)

        await age(shop, expires_at=timedelta(days=1))
        assert await who(client) == 401


async def test_sessions_that_are_over_do_not_pile_up(shop: FastAPI, serve: Serve) -> None:
    async with serve(shop) as client:
        await client.post(f"/login/{ADA}")
        client.cookies.clear()
        await age(shop, expires_at=timedelta(days=91))

        await client.post(f"/login/{ADA}")

        async with shop.state.database.transaction() as write:
            assert await write.scalar(select(func.count()).select_from(LoginSession)) == 1
