# Rung's file: advancing to another stage may change it.
"""Sessions on their way from Postgres to Redis and back: copies of two neighbouring steps serve at
once, people come and go through both, and the stores go away."""

import asyncio
import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg
import pytest
from fastapi import FastAPI
from starlette.types import Message

from app.infra import session_backfill
from app.infra.redis_sessions import ENDED, PAUSE_SECONDS
from app.infra.session_move import Step
from app.infra.session_rows import Session
from app.infra.sessions import COOKIE
from dev import valkey
from dev.pytest_plugin import Services
from dev.valkey import Valkey
from tests.infra.stored_in_redis import StoredInRedis
from tests.infra.test_sessions import StoredRows, session_app

ADA = uuid4()
PEOPLE = int(os.environ.get("PEOPLE", "1000"))

IN_BOTH = (Step.WRITE_BOTH, Step.REDIS_THEN_POSTGRES, Step.REDIS_FIRST)

type At = Callable[[Step], FastAPI]
type Backfill = Callable[[str], Coroutine[None, None, None]]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]

    @property
    def token(self) -> str:
        return SimpleCookie(self.headers["set-cookie"])[COOKIE].value


async def ask(app: FastAPI, method: str, path: str, token: str = "") -> Answer:
    """As a browser would, at a fifth of its price: there are many thousand questions."""
    answer: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        answer.append(message)

    scope = {
        **{"type": "http", "http_version": "1.1", "method": method, "scheme": "https"},
        **{"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""},
        "headers": [(b"host", b"shop.test"), (b"cookie", f"{COOKIE}={token}".encode())],
        **{"client": ("127.0.0.1", 1), "server": ("shop.test", 443)},
    }
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in answer[0]["headers"]}
    return Answer(answer[0]["status"], headers)


async def is_logged_in(app: FastAPI, token: str) -> bool:
    status = (await ask(app, "GET", "/me", token)).status
    assert status in {200, 401}
    return status == 200


def hash_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def logged_in(app: FastAPI, user: UUID | None = None) -> str:
    answer = await ask(app, "POST", f"/login/{user or uuid4()}")
    assert answer.status == 200
    return answer.token


@pytest.fixture
def server(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    with valkey.running("sessions") as server:
        monkeypatch.setenv("SESSION_REDIS_URL", server.url)
        monkeypatch.setenv("LOG_LEVEL", "ERROR")
        yield server


@pytest.fixture
def impatient(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_STATEMENT_SECONDS", "0.5")
    monkeypatch.setenv("SESSION_REDIS_SECONDS", "0.5")


@pytest.fixture
async def at(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[At]:
    """A copy of the app for each step."""
    async with AsyncExitStack() as stack:
        apps = {}
        for step in Step:
            monkeypatch.setenv("SESSION_STORE", step)
            apps[step] = session_app()
            await stack.enter_async_context(apps[step].router.lifespan_context(apps[step]))
        yield apps.__getitem__


@pytest.fixture
def backfill(monkeypatch: pytest.MonkeyPatch) -> Backfill:
    async def backfill(direction: str) -> None:
        step = Step.WRITE_BOTH if direction == "to-redis" else Step.REDIS_FIRST
        monkeypatch.setenv("SESSION_STORE", step)
        await session_backfill.main(direction)

    return backfill


class People:
    """Who come and go, and what should be known of each of their tokens."""

    def __init__(self) -> None:
        self._users: dict[str, UUID] = {}
        self.logged_out: set[str] = set()

    async def arrive(self, app: FastAPI, number: int) -> None:
        users = [uuid4() for _ in range(number)]
        for some in itertools.batched(users, 8, strict=False):
            tokens = await asyncio.gather(*(logged_in(app, user) for user in some))
            self._users |= dict(zip(tokens, some, strict=True))

    async def come_and_go(self, app: FastAPI) -> None:
        """Newcomers, people who leave, log in once more, or leave on every device."""
        await self.arrive(app, 10)
        everybody = iter(list(self._users))
        for token in itertools.islice(everybody, 10):
            assert (await ask(app, "POST", "/logout", token)).status == 200
            self._leave(token)
        for token in itertools.islice(everybody, 10):
            user = self._users[token]
            new = await ask(app, "POST", f"/login/{user}", token)
            self._leave(token)
            self._users[new.token] = user
        for token in itertools.islice(everybody, 5):
            user = self._users[token]
            other_device = await logged_in(app, user)
            self._users[other_device] = user
            assert (await ask(app, "POST", f"/logout-everywhere/{user}", token)).status == 200
            self._leave(token)
            self._leave(other_device)

    async def are_known_to(self, *apps: FastAPI) -> None:
        """Each of those logged in to one of the copies; those logged out to none."""
        copies = itertools.cycle(apps)
        visits = [is_logged_in(next(copies), token) for token in self._users]
        assert [await visit for visit in visits].count(False) == 0, "logged out"
        returns = [is_logged_in(app, token) for app in apps for token in self.logged_out]
        assert [await visit for visit in returns].count(True) == 0, "revived"

    def _leave(self, token: str) -> None:
        del self._users[token]
        self.logged_out.add(token)


@pytest.mark.slow
async def test_nobody_is_logged_out_or_revived_on_the_way_there_and_back_and_there_again(
    at: At, backfill: Backfill
) -> None:
    people = People()
    await people.arrive(at(Step.POSTGRES), PEOPLE)

    for old, new in pairwise([*Step, *list(Step)[-2::-1], *list(Step)[1:3]]):
        for copy in (at(new), at(old)):
            await people.come_and_go(copy)
        await people.are_known_to(at(old), at(new))
        if (old, new) == (Step.POSTGRES, Step.WRITE_BOTH):
            await backfill("to-redis")
        if (old, new) == (Step.REDIS, Step.REDIS_FIRST):
            await backfill("to-postgres")
    await people.are_known_to(at(new))


@pytest.mark.parametrize("step", [*IN_BOTH, Step.REDIS])
async def test_while_redis_is_down_nobody_is_logged_out_or_told_that_they_are(
    at: At, server: Valkey, step: Step
) -> None:
    app = at(step)
    token = await logged_in(app)
    server.die()

    assert (await ask(app, "GET", "/me", token)).status == WITHOUT_REDIS[step]
    for path in ("/logout", f"/login/{uuid4()}"):
        assert is_refused(await ask(app, "POST", path, token))

    server.start()
    await asyncio.sleep(PAUSE_SECONDS if step is Step.REDIS_THEN_POSTGRES else 0)
    assert await is_logged_in(app, token)
    assert (await ask(app, "POST", "/logout", token)).status == 200
    assert await whoever_knows(token, at, step) == []


@pytest.mark.slow
@pytest.mark.parametrize("step", [*IN_BOTH, Step.REDIS])
async def test_while_redis_hangs_nobody_is_logged_out_or_told_that_they_are(
    impatient: None, at: At, server: Valkey, step: Step
) -> None:
    app = at(step)
    token = await logged_in(app)
    server.hang()

    assert (await ask(app, "GET", "/me", token)).status == WITHOUT_REDIS[step]
    assert is_refused(await ask(app, "POST", "/logout", token))

    server.go_on()  # It may now do what it was asked, though nobody waits for it any more.
    await asyncio.sleep(PAUSE_SECONDS)
    assert (await ask(app, "POST", "/logout", token)).status == 200
    assert await whoever_knows(token, at, step) == []


@pytest.mark.slow
@pytest.mark.parametrize("step", [*IN_BOTH, Step.REDIS])
async def test_while_redis_hangs_not_each_logout_waits_for_it(
    impatient: None, at: At, server: Valkey, step: Step
) -> None:
    token = await logged_in(at(step))
    server.hang()

    async with asyncio.timeout(8):  # half a second each would be 20 s
        for _ in range(40):
            assert is_refused(await ask(at(step), "POST", "/logout", token))
    server.go_on()


WITHOUT_REDIS = {
    Step.WRITE_BOTH: 200,
    Step.REDIS_THEN_POSTGRES: 200,
    Step.REDIS_FIRST: 503,
    Step.REDIS: 503,
}


def is_refused(answer: Answer) -> bool:
    """And the cookie is left as it was."""
    is_unavailable = (answer.status, answer.headers.get("retry-after")) == (503, "1")
    return is_unavailable and "set-cookie" not in answer.headers


async def whoever_knows(token: str, at: At, step: Step) -> list[Step]:
    """Which copies that may serve beside it take the token for a session."""
    steps = list(Step)
    place = steps.index(step)
    neighbours = steps[max(place - 1, 0) : place + 2]
    return [neighbour for neighbour in neighbours if await is_logged_in(at(neighbour), token)]


@pytest.mark.slow
@pytest.mark.parametrize("step", IN_BOTH)
async def test_a_logout_that_postgres_does_not_take_is_refused_and_changes_nothing(
    impatient: None, at: At, services: Services, step: Step
) -> None:
    token = await logged_in(at(step))

    async with connected(services) as somebody, somebody.transaction():
        await somebody.execute("LOCK TABLE login_sessions")
        assert is_refused(await ask(at(step), "POST", "/logout", token))

    assert step in await whoever_knows(token, at, step)
    assert (await ask(at(step), "POST", "/logout", token)).status == 200
    assert await whoever_knows(token, at, step) == []


@pytest.mark.parametrize("step", IN_BOTH)
async def test_a_commit_that_fails_at_the_very_end_is_refused_and_revives_nobody(
    at: At, services: Services, step: Step
) -> None:
    token = await logged_in(at(step))

    async with connected(services) as somebody:
        await somebody.execute(FAIL_AT_COMMIT)
        for path in (f"/login/{uuid4()}", "/logout"):
            assert is_refused(await ask(at(step), "POST", path, token))
        await somebody.execute("DROP TRIGGER fail ON login_sessions")

    assert (await ask(at(step), "POST", "/logout", token)).status == 200
    assert await whoever_knows(token, at, step) == []


FAIL_AT_COMMIT = """
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE serialization_failure; END $$;
    CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR DELETE ON login_sessions
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail();
"""


async def test_a_row_that_comes_back_brings_nobody_back(
    at: At, services: Services, backfill: Backfill
) -> None:
    """As a replica shows it that is behind, or a copy that was read before the logout."""
    app = at(Step.REDIS_THEN_POSTGRES)
    token = await logged_in(app)
    async with connected(services) as postgres:
        rows = await postgres.fetch("SELECT * FROM login_sessions")
        await ask(app, "POST", "/logout", token)
        await postgres.copy_records_to_table("login_sessions", records=rows)
    assert await is_logged_in(at(Step.WRITE_BOTH), token)

    assert not await is_logged_in(app, token)
    await backfill("to-redis")
    assert not await is_logged_in(app, token)


@pytest.mark.parametrize("path", ["/logout", "/logout-everywhere/{ada}", "/login/{ada}"])
async def test_a_copy_that_comes_too_late_brings_nobody_back(at: At, path: str) -> None:
    app = at(Step.WRITE_BOTH)
    token = await logged_in(at(Step.POSTGRES), ADA)
    row = await app.state.session_store.find(hash_of(token))

    assert (await ask(app, "POST", path.format(ada=ADA), token)).status == 200

    assert await app.state.session_redis.keep(hash_of(token), row) == ENDED


async def test_who_logs_out_while_a_visit_is_looked_up_is_not_copied(
    at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = at(Step.REDIS_THEN_POSTGRES)
    token = await logged_in(at(Step.POSTGRES))
    rows = app.state.session_store.rows
    find = rows.find

    async def find_just_before_the_logout(token_hash: bytes) -> Session | None:
        row: Session | None = await find(token_hash)
        assert (await ask(app, "POST", "/logout", token)).status == 200
        return row

    monkeypatch.setattr(rows, "find", find_just_before_the_logout)
    assert not await is_logged_in(app, token)


async def test_an_older_copy_leaves_the_newer_one(at: At) -> None:
    app = at(Step.WRITE_BOTH)
    token = await logged_in(app)
    session = await app.state.session_redis.find(hash_of(token))

    older = replace(session, seen_at=session.seen_at - timedelta(days=1))
    await app.state.session_redis.keep(hash_of(token), older)

    assert await app.state.session_redis.find(hash_of(token)) == session


async def test_a_login_on_its_way_to_its_commit_is_not_taken_for_one_that_has_ended(
    at: At, backfill: Backfill
) -> None:
    app = at(Step.WRITE_BOTH)
    token, now = "given out after the commit", datetime.now(UTC)
    session = Session(ADA, now, now + timedelta(days=1))

    async with app.state.database.transaction() as write:
        await app.state.session_store.start(write, hash_of(token), session)
        await app.state.session_redis.keep(hash_of(token), session)
        running = asyncio.create_task(backfill("to-redis"))
        await asyncio.wait([running], timeout=0.5)
    await running

    assert await is_logged_in(at(Step.REDIS_FIRST), token)


async def test_a_logout_on_its_way_to_its_commit_is_not_undone(
    at: At, services: Services, backfill: Backfill
) -> None:
    app = at(Step.REDIS_FIRST)
    token = await logged_in(at(Step.REDIS))

    async with app.state.database.transaction() as write:
        await app.state.session_store.end(write, hash_of(token))
        running = asyncio.create_task(backfill("to-postgres"))
        await asyncio.wait([running], timeout=0.5)
    await running

    assert await StoredRows(services).token_hashes() == []


async def test_who_is_only_in_postgres_is_copied_by_a_visit(at: At) -> None:
    token = await logged_in(at(Step.POSTGRES))

    assert not await is_logged_in(at(Step.REDIS_FIRST), token)
    assert await is_logged_in(at(Step.REDIS_THEN_POSTGRES), token)
    assert await is_logged_in(at(Step.REDIS_FIRST), token)


async def test_a_visit_is_noted_in_both_stores(at: At, services: Services) -> None:
    token = await logged_in(at(Step.WRITE_BOTH))
    stores = (StoredRows(services), StoredInRedis())
    started = [await store.seen_at() for store in stores]

    for step in IN_BOTH:
        for store in stores:
            await store.age(seen_at=timedelta(minutes=6))
        assert await is_logged_in(at(step), token)
        now = [await store.seen_at() for store in stores]
        assert all(seen > start for seen, start in zip(now, started, strict=True))


async def test_the_newer_visit_wins_either_way(
    at: At, services: Services, backfill: Backfill
) -> None:
    await logged_in(at(Step.WRITE_BOTH))
    rows, redis = StoredRows(services), StoredInRedis()

    await redis.age(seen_at=timedelta(days=2))
    await rows.age(seen_at=timedelta(days=1))
    await backfill("to-redis")
    assert abs(await rows.seen_at() - await redis.seen_at()) < timedelta(seconds=1)

    await rows.age(seen_at=timedelta(days=1))
    await backfill("to-redis")
    assert await redis.seen_at() - await rows.seen_at() > timedelta(hours=23)
    await backfill("to-postgres")
    assert abs(await rows.seen_at() - await redis.seen_at()) < timedelta(seconds=1)


@pytest.mark.slow
async def test_a_backfill_that_is_killed_is_run_again(
    server: Valkey, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(services) as postgres:
        await postgres.execute(
            """INSERT INTO login_sessions SELECT sha256(n::text::bytea), uuidv4(), now(),
            now() + interval '1 day' FROM generate_series(1, 10000) AS n"""
        )
    monkeypatch.setenv("SESSION_STORE", "write-both")

    progress, *_ = await run_backfill(kill_at_once=True)
    assert progress == "1,000 sessions of Postgres, 1,000 of them copied"
    copied = len(await StoredInRedis().token_hashes())
    assert 1000 <= copied < 10_000

    *_, result = await run_backfill()
    missing = 10_000 - copied
    assert result == f"Redis holds all 10,000 sessions: {missing:,} copied now, 0 ended there."
    assert len(await StoredInRedis().token_hashes()) == 10_000


async def run_backfill(*, kill_at_once: bool = False) -> list[str]:
    """The lines that it prints."""
    command = [sys.executable, "-m", "app.infra.session_backfill", "to-redis"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout
    first = await process.stdout.readline()
    if kill_at_once:
        process.kill()
    rest, _ = await process.communicate()
    return (first + rest).decode().splitlines()


@pytest.mark.parametrize("direction", ["to-redis", "to-postgres"])
async def test_people_come_and_go_while_a_backfill_runs(
    at: At, backfill: Backfill, direction: str
) -> None:
    step, before, after = {
        "to-redis": (Step.WRITE_BOTH, Step.POSTGRES, Step.REDIS_FIRST),
        "to-postgres": (Step.REDIS_FIRST, Step.REDIS, Step.WRITE_BOTH),
    }[direction]
    people = People()
    await people.arrive(at(before), 300)

    running = asyncio.create_task(backfill(direction))
    while not running.done():
        await people.come_and_go(at(step))
    await running

    await people.are_known_to(at(step), at(after))


@pytest.mark.parametrize(
    ("direction", "step"),
    [("to-redis", "postgres"), ("to-redis", "redis"), ("to-postgres", "redis-then-postgres")],
)
@pytest.mark.usefixtures("server")
async def test_a_backfill_at_the_wrong_step_is_refused(
    monkeypatch: pytest.MonkeyPatch, direction: str, step: str
) -> None:
    monkeypatch.setenv("SESSION_STORE", step)

    with pytest.raises(SystemExit, match=f"SESSION_STORE is {step}, and {direction} is safe only"):
        await session_backfill.main(direction)


async def test_a_server_that_drops_sessions_is_refused(
    services: Services, monkeypatch: pytest.MonkeyPatch, backfill: Backfill
) -> None:
    with valkey.running("cache") as server:
        monkeypatch.setenv("SESSION_REDIS_URL", server.url)

        with pytest.raises(SystemExit, match="maxmemory-policy is allkeys-lfu"):
            await backfill("to-redis")


@asynccontextmanager
async def connected(services: Services) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(services.database_url)
    try:
        yield connection
    finally:
        await connection.close()
