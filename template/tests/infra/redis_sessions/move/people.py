# Rung's file: advancing to another stage may change it.
"""Simulated users of copies of the app, and the answers that they should get."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable
from http.cookies import SimpleCookie
from typing import NamedTuple
from uuid import UUID, uuid4

from fastapi import FastAPI
from starlette.types import Message

from app.infra.session_tokens import COOKIE


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]

    @property
    def token(self) -> str:
        return SimpleCookie(self.headers["set-cookie"])[COOKIE].value


async def ask(app: FastAPI, method: str, path: str, token: str = "") -> Answer:
    """Asks as a browser would, at a fifth of the cost, because there are thousands of requests."""
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


def is_refused(answer: Answer) -> bool:
    """Asks, and leaves the cookie unchanged."""
    is_unavailable = (answer.status, answer.headers.get("retry-after")) == (503, "1")
    return is_unavailable and "set-cookie" not in answer.headers


async def logged_in(app: FastAPI, user: UUID | None = None) -> str:
    answer = await ask(app, "POST", f"/login/{user or uuid4()}")
    assert answer.status == 200
    return answer.token


class People:
    """Users who log in and out, and the expected state of each of their tokens."""

    def __init__(self) -> None:
        self._users: dict[str, UUID] = {}
        self.logged_out: set[str] = set()

    async def arrive(self, app: FastAPI, number: int) -> None:
        users = [uuid4() for _ in range(number)]
        for some in itertools.batched(users, 8, strict=False):
            tokens = await asyncio.gather(*(logged_in(app, user) for user in some))
            self._users |= dict(zip(tokens, some, strict=True))

    async def come_and_go(self, app: FastAPI) -> None:
        """New users arrive. Others log out, log in again, or log out on every device."""
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
        """Each logged-in user is known to a copy, and no logged-out user is known to any."""
        assert (await self._visits(*apps)).keys() == {200}, "logged out"
        assert (await self._returns(*apps)).keys() <= {401}, "revived"

    async def are_known_without_redis_to(self, *apps: FastAPI, or_refused: bool) -> None:
        told = {200, 503} if or_refused else {200}
        assert (await self._visits(*apps)).keys() <= told, "told that they are logged out"
        assert (await self._returns(*apps)).keys() <= {401, 503}, "revived"

    async def _visits(self, *apps: FastAPI) -> Counter[int]:
        return await _statuses(zip(itertools.cycle(apps), self._users, strict=False))

    async def _returns(self, *apps: FastAPI) -> Counter[int]:
        return await _statuses(itertools.product(apps, self.logged_out))

    def _leave(self, token: str) -> None:
        del self._users[token]
        self.logged_out.add(token)


async def _statuses(visits: Iterable[tuple[FastAPI, str]]) -> Counter[int]:
    return Counter([(await ask(app, "GET", "/me", token)).status for app, token in visits])
