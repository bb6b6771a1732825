# Rung's file: advancing to another stage may change it.
"""python -m app.infra.redis_sessions.move to-redis: copy the login sessions of Postgres to Redis.

And to-postgres, on the way back. The newer session wins, and an ended one stays ended. After a kill
run it again: it compares everything and changes the differences. It keeps no note of its progress,
because a note would be wrong after a step back and forth.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import asyncpg

from app.infra import environment
from app.infra.connections import DatabaseSettings, connect
from app.infra.failures import ends_in_words
from app.infra.redis_sessions.settings import MoveSettings, Step
from app.infra.redis_sessions.store import ENDED, Command, RedisSessions, session_key
from app.infra.session_rows import Session, SessionSettings

BATCH = 1000
# A batch is larger than a request's lookup, and no client waits for it.
REDIS_SECONDS = 10.0

SAFE_AT = {
    "to-redis": (Step.WRITE_BOTH, Step.REDIS_THEN_POSTGRES),
    "to-postgres": (Step.REDIS_FIRST,),
}

ROWS = "SELECT token_hash, user_id, seen_at, expires_at FROM login_sessions"
ALIVE = "expires_at > now() AND seen_at > now() - $2::interval"
PAGE = f"{ROWS} WHERE token_hash > $1 AND {ALIVE} ORDER BY token_hash LIMIT {BATCH}"
THESE = f"{ROWS} WHERE token_hash = ANY($1)"
KEEP_ROW = """
    INSERT INTO login_sessions (token_hash, user_id, seen_at, expires_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (token_hash) DO UPDATE
    SET seen_at = greatest(login_sessions.seen_at, excluded.seen_at)
"""
# To start or end a session, the app changes its row, then Redis, then commits. While this lock is
# held, no transaction is between these steps, so the stores can be compared. The command takes the
# lock only when the stores differ.
LOCK = "SET LOCAL lock_timeout = '3s'; LOCK TABLE login_sessions IN SHARE ROW EXCLUSIVE MODE"

type Sessions = dict[bytes, Session]


class Backfill:
    def __init__(
        self, postgres: asyncpg.Connection, redis: RedisSessions, settings: SessionSettings
    ) -> None:
        self._postgres = postgres
        self._redis = redis
        self._idle = settings.idle
        self._seen_precision = settings.seen_precision

    async def to_redis(self) -> str:
        seen = copied = ended = 0
        async for rows in self._pages_of_postgres():
            held = await self._held(rows)
            newer = {
                token_hash: row
                for token_hash, row in rows.items()
                if held[token_hash] != ENDED
                and self._is_newer(row, self._redis.alive(held[token_hash]))
            }
            await self._send(self._redis.keep_command(*kept) for kept in newer.items())
            seen, copied = seen + len(rows), copied + len(newer)
            _show(f"{seen:,} sessions of Postgres, {copied:,} of them copied")
        # Copies of the step before ended sessions in Postgres alone.
        async for hashes in self._pages_of_redis():
            if await self._not_in_postgres(hashes):
                async with self._postgres.transaction():
                    await self._postgres.execute(LOCK)
                    gone = await self._not_in_postgres(hashes)
                    ended_there = (self._redis.end_command(one, only_held=True) for one in gone)
                    await self._send(ended_there)
                ended += len(gone)
        return f"Redis holds all {seen:,} sessions: {copied:,} copied now, {ended:,} ended there."

    async def to_postgres(self) -> str:
        seen = copied = ended = 0
        async for hashes in self._pages_of_redis():
            if await self._newer_in_redis(hashes):
                async with self._postgres.transaction():
                    await self._postgres.execute(LOCK)
                    newer = await self._newer_in_redis(hashes)
                    kept = [(of, s.user_id, s.seen_at, s.expires_at) for of, s in newer.items()]
                    await self._postgres.executemany(KEEP_ROW, kept)
                copied += len(newer)
            seen += len(hashes)
            _show(f"{seen:,} sessions of Redis, {copied:,} of them copied")
        # A failed COMMIT ended them in Redis alone. Rows that Redis does not know stay: Redis may
        # have lost its data, and then these rows are the reason to go back.
        async for rows in self._pages_of_postgres():
            gone = [of for of, held in (await self._held(rows)).items() if held == ENDED]
            await self._postgres.execute(
                "DELETE FROM login_sessions WHERE token_hash = ANY($1)", gone
            )
            ended += len(gone)
        return f"Postgres holds all sessions: {copied:,} copied now, {ended:,} ended there."

    async def _newer_in_redis(self, hashes: Iterable[bytes]) -> Sessions:
        rows = await self._rows(hashes)
        alive = await self._alive_in_redis(hashes)
        return {
            of: session for of, session in alive.items() if self._is_newer(session, rows.get(of))
        }

    def _is_newer(self, session: Session, known: Session | None) -> bool:
        return known is None or session.seen_at - known.seen_at > self._seen_precision

    async def _not_in_postgres(self, hashes: Iterable[bytes]) -> set[bytes]:
        return (await self._alive_in_redis(hashes)).keys() - await self._rows(hashes)

    async def _alive_in_redis(self, hashes: Iterable[bytes]) -> Sessions:
        found = {of: self._redis.alive(held) for of, held in (await self._held(hashes)).items()}
        return {of: session for of, session in found.items() if session}

    async def _held(self, hashes: Iterable[bytes]) -> dict[bytes, bytes | None]:
        order = list(hashes)
        held = await self._redis.run(self._redis.values([session_key(one) for one in order]))
        return dict(zip(order, held, strict=True))

    async def _send(self, commands: Iterable[Command]) -> None:
        pipeline = self._redis.client.pipeline(transaction=False)
        for command in commands:
            pipeline.eval(*command)
        await self._redis.run(pipeline.execute())

    async def _pages_of_redis(self) -> AsyncGenerator[list[bytes]]:
        cursor, pattern = None, "session:*"
        while cursor != 0:
            scan: Any = self._redis.client.scan(cursor or 0, match=pattern, count=BATCH)
            cursor, keys = await self._redis.run(scan)
            if keys:
                yield [bytes.fromhex(key.decode().removeprefix("session:")) for key in keys]

    async def _pages_of_postgres(self) -> AsyncGenerator[Sessions]:
        last = b""
        while rows := _sessions(await self._postgres.fetch(PAGE, last, self._idle)):
            yield rows
            last = max(rows)

    async def _rows(self, hashes: Iterable[bytes]) -> Sessions:
        return _sessions(await self._postgres.fetch(THESE, list(hashes)))


def _sessions(records: list[asyncpg.Record]) -> Sessions:
    return {token_hash: Session(*session) for token_hash, *session in records}


def _show(progress: str) -> None:
    print(progress, end="\r" if sys.stdout.isatty() else "\n", flush=True)


async def main(direction: str) -> None:
    move, settings = environment.read(MoveSettings), environment.read(SessionSettings)
    if move.store not in SAFE_AT[direction]:
        steps = " or ".join(SAFE_AT[direction])
        sys.exit(
            f"SESSION_STORE is {move.store}, and {direction} is safe only at {steps}:"
            f" see docs/runbooks/redis_sessions/move-the-sessions.md."
        )
    redis = RedisSessions(str(move.redis_url), REDIS_SECONDS, settings)
    database = environment.read(DatabaseSettings)
    postgres = await connect(database, database.direct_url)
    try:
        await _refuse_to_forget(redis)
        backfill = Backfill(postgres, redis, settings)
        print(await (backfill.to_redis() if direction == "to-redis" else backfill.to_postgres()))
    finally:
        await postgres.close()
        await redis.aclose()


async def _refuse_to_forget(redis: RedisSessions) -> None:
    memory = await redis.run(redis.client.info("memory"))
    policy = memory.get("maxmemory_policy", "not known")
    if policy != "noeviction":
        sys.exit(
            f"The server of SESSION_REDIS_URL may drop sessions: its maxmemory-policy is"
            f" {policy}. Give it noeviction, as deploy/sessions.conf does."
        )


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SAFE_AT:
        sys.exit("Say where to: python -m app.infra.redis_sessions.move to-redis | to-postgres")
    with ends_in_words():
        asyncio.run(main(sys.argv[1]))
