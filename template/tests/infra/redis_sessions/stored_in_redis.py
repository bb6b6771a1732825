# Rung's file: advancing to another stage may change it.
"""Looks at the sessions in Redis, for tests."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis

from app.infra.session_rows import SessionSettings


class StoredInRedis:
    """Reads the sessions in Redis, and makes them older."""

    def __init__(self) -> None:
        self.client = Redis.from_url(os.environ["SESSION_REDIS_URL"])

    async def age(
        self, *, seen_at: timedelta = timedelta(), expires_at: timedelta = timedelta()
    ) -> None:
        for key, (user, seen, expires) in self._sessions().items():
            older = (int(seen) - _ms(seen_at), int(expires) - _ms(expires_at))
            ends = min(older[1], older[0] + _ms(SessionSettings().idle))
            self.client.set(key, f"{user} {older[0]} {older[1]}", pxat=max(ends, 1))

    async def seen_at(self) -> datetime:
        ((_, seen, _),) = self._sessions().values()
        return datetime.fromtimestamp(int(seen) / 1000, UTC)

    async def token_hashes(self) -> list[bytes]:
        return [bytes.fromhex(key.removeprefix("session:")) for key in self._sessions()]

    def _sessions(self) -> dict[str, list[str]]:
        keys = [key.decode() for key in self.client.scan_iter("session:*")]
        held: list[Any] = self.client.mget(keys)
        return {k: v.decode().split() for k, v in zip(keys, held, strict=True) if v}


def _ms(age: timedelta) -> int:
    return age // timedelta(milliseconds=1)
