# Rung's file: advancing to another stage may change it.
"""Redis holds values under the keys of sessions that the app never stored.

A session that cannot be read is no session: 401, and its owner can log in again.
"""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from redis import Redis

from app.infra.own_writes.client import Client, _current
from app.infra.own_writes.log_position import NOT_KNOWN, Position
from app.infra.redis_sessions.store import position_key, session_key
from dev.cache.valkey import Valkey
from tests.infra.redis_sessions.stored_in_redis import StoredInRedis
from tests.infra.test_sessions import ADA, who

type Store = Callable[[Redis, str], object]


@pytest.fixture
def redis(server: Valkey) -> Iterator[Redis]:
    with Redis.from_url(server.url) as redis:
        yield redis


def text(value: bytes) -> Store:
    return lambda redis, key: redis.set(key, value)


def other_type(add: Store) -> Store:
    return lambda redis, key: (redis.delete(key), add(redis, key))


OTHER_TYPES = {
    "a list": other_type(lambda redis, key: redis.lpush(key, "Ada")),
    "a set": other_type(lambda redis, key: redis.sadd(key, "Ada")),
    "a hash": other_type(lambda redis, key: redis.hset(key, "Ada", "1")),
    "a stream": other_type(lambda redis, key: redis.xadd(key, {"Ada": "1"})),
}
TEXTS = {
    "a number": b"5",
    "a space": b" ",
    "no UTF-8": b"\xff\xfe",
    "JSON": b'{"user_id": "Ada"}',
    "no id": b"Ada 1700000000000 9900000000000",
    "cut off": f"{ADA} 1700000000000 99000".encode(),
    "no times": f"{ADA} now later".encode(),
    "a time without end": f"{ADA} 1{'0' * 30} 1{'0' * 30}".encode(),
    "an enormous number": f"{ADA} 1{'0' * 9000} 1{'0' * 9000}".encode(),
    "a later version": f"{ADA} 1700000000000 9900000000000 phone".encode(),
}
ODD_VALUES = OTHER_TYPES | {name: text(value) for name, value in TEXTS.items()}
odd = pytest.mark.parametrize("store", ODD_VALUES.values(), ids=ODD_VALUES.keys())
other = pytest.mark.parametrize("store", OTHER_TYPES.values(), ids=OTHER_TYPES.keys())


@odd
async def test_a_session_that_cannot_be_read_is_none(
    ada: AsyncClient, redis: Redis, store: Store
) -> None:
    (token_hash,) = await StoredInRedis().token_hashes()
    store(redis, session_key(token_hash))

    assert await who(ada) == 401
    assert (await ada.get(f"/sessions/{ADA}")).json() == []
    assert (await ada.post(f"/login/{ADA}")).status_code == 200
    assert await who(ada) == str(ADA)
    assert redis.get(session_key(token_hash)) == b""  # the login ended it


@odd
async def test_a_visit_replaces_what_cannot_be_read(
    ada: AsyncClient, app: FastAPI, redis: Redis, store: Store
) -> None:
    (token_hash,) = await StoredInRedis().token_hashes()
    session = await app.state.session_redis.find(token_hash)
    store(redis, session_key(token_hash))

    await app.state.session_redis.note_visit(token_hash, session)

    assert await who(ada) == str(ADA)


@other
async def test_with_an_odd_index_logins_work_and_logging_out_everywhere_fails(
    ada: AsyncClient, redis: Redis, store: Store
) -> None:
    store(redis, f"sessions-of:{ADA}")

    assert (await ada.post(f"/login/{ADA}")).status_code == 200
    assert await who(ada) == str(ADA)
    assert (await ada.post(f"/logout-everywhere/{ADA}")).status_code == 503
    assert (await ada.get(f"/sessions/{ADA}")).status_code == 503
    assert await who(ada) == str(ADA)
    assert (await ada.post("/logout")).status_code == 200
    assert await who(ada) == 401


POSITIONS = {
    **{"no position": b"5", "nothing": b"", "no UTF-8": b"\xff", "greater text": b"zzz"},
    "greater numbers": b"f.f",
}


@pytest.mark.parametrize("value", POSITIONS.values(), ids=POSITIONS.keys())
async def test_a_position_that_cannot_be_read_is_not_known_until_the_next_write(
    app: FastAPI, ada: AsyncClient, redis: Redis, value: bytes
) -> None:
    (token_hash,) = await StoredInRedis().token_hashes()
    redis.set(position_key(token_hash), value)
    assert await position_of(app, token_hash) == NOT_KNOWN

    await app.state.session_redis.note_position([token_hash], Position(1, 7 << 20))
    assert await position_of(app, token_hash) == Position(1, 7 << 20)


@other
async def test_a_position_replaces_a_value_of_another_type(
    app: FastAPI, ada: AsyncClient, redis: Redis, store: Store
) -> None:
    (token_hash,) = await StoredInRedis().token_hashes()
    store(redis, position_key(token_hash))

    await app.state.session_redis.note_position([token_hash], Position(1, 7 << 20))

    assert await position_of(app, token_hash) == Position(1, 7 << 20)


async def test_when_memory_is_full_a_position_is_stored(
    app: FastAPI, ada: AsyncClient, redis: Redis
) -> None:
    """Otherwise a replica may answer the client's next read without its write."""
    (token_hash,) = await StoredInRedis().token_hashes()
    redis.config_set("maxmemory", "1mb")

    await app.state.session_redis.note_position([token_hash], Position(1, 7 << 20))

    assert await position_of(app, token_hash) == Position(1, 7 << 20)


async def position_of(app: FastAPI, token_hash: bytes) -> Position | None:
    app.state.session_redis._least_position = None  # a new connection would raise it

    async def asked() -> Position | None:
        client = Client(token_hash=token_hash, sessions=app.state.session_store)
        _current.set(client)
        return await client.resolve(client.main)

    return await asyncio.create_task(asked())
