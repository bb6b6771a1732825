"""Uses the service at a steady rate, and looks for every acknowledged write."""

import asyncio
import hashlib
import itertools
import json
import random
import re
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

from browser import Answer, Browser, NoAnswerError
from ledger import Counts, Ledger

AWAY = (502, 503, 504)  # any other error is a fault, also while a server is away
# A client sees these when its own login or order was lost with the primary.
LOST_COMMIT = re.compile("placed twice|: 401 ")
STOCK = "GET /products/{id} after an order"
GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"


class GoneWrongError(Exception):
    """Counted already; the visitor goes on with something else."""


class Load:
    def __init__(
        self, url: str, ledger: Ledger, visitors: int, rate: float, reads: int = 1
    ) -> None:
        self.url = url
        self.reads = reads
        self.ledger = ledger
        self.counts = Counts("warm up")
        self.announced = False
        # If it is announced: a pattern of method and path. With it, only these may fail, as AWAY.
        self.may_fail: str | None = None
        # During an unplanned failover: faults that a lost commit may explain.
        self.held: list[tuple[str, str]] | None = None
        self.interval = visitors / rate
        self.stock: dict[str, int] = {}  # the least that anybody has seen of a product
        self._is_over = False
        self._visitors = [Visitor(self, number) for number in range(visitors)]
        self._tasks: list[asyncio.Task[None]] = []
        self.addresses = (f"127.1.{n // 250 % 250}.{n % 250 + 1}" for n in itertools.count())

    def start(self) -> None:
        self._tasks = [asyncio.create_task(visitor.visit()) for visitor in self._visitors]

    async def stop(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    @property
    def is_over(self) -> bool:
        return self._is_over

    def fault(
        self, kind: str, what: str, *, announced: bool = False, away: bool = False
    ) -> GoneWrongError:
        may = self.may_fail is None or (away and re.search(self.may_fail, what))
        if kind == "failed" and (announced or self.announced) and may:
            self.counts.announced += 1
        elif self.held is not None and (kind != "failed" or LOST_COMMIT.search(what)):
            self.held.append((kind, what))
        else:
            self._count(kind, what)
        return GoneWrongError(what)

    def settle(self, lost_commits: int) -> None:
        """Each commit that the runbook lists as lost explains one of the faults held back, and a
        stock that became larger to each visitor. What a client with a token has written is noted
        without waiting for the disk, so it may see an older stock although nothing is listed."""
        held, self.held = self.held or [], None
        if lost_commits:
            self.stock.clear()  # there is one more of a product whose order is lost
        others = [
            (kind, what)
            for kind, what in held
            if not (what.startswith(STOCK) and (lost_commits or ", token)" in what))
        ]
        left = others[lost_commits:]
        self.counts.given_up += len(held) - len(left)
        for kind, what in left:
            self._count(kind, what)

    def _count(self, kind: str, what: str) -> None:
        setattr(self.counts, kind, getattr(self.counts, kind) + 1)
        self.ledger.seen.append(f"{time.strftime('%X')} {self.counts.name}: {kind}: {what}")

    async def until_all_are_logged_in(self) -> None:
        while not all(one.is_logged_in for one in self._visitors):
            await asyncio.sleep(0.05)

    async def keep_sessions(self) -> None:
        """When everybody is logged in: one more a visitor, which nobody uses until the end.

        Raises GoneWrongError.
        """
        await self.until_all_are_logged_in()
        await asyncio.gather(*(one.keep_a_session() for one in self._visitors))

    async def forget_lost_logouts(self, begin: int) -> None:
        """Of the sessions that ended from there on."""
        for token in self.ledger.ended[begin:]:
            with suppress(GoneWrongError):
                if await self._visitors[0].lives_again(token):
                    self.ledger.forget("ended", token)
                    self.fault("revived", "a session whose end is lost")

    async def sessions_that_are_lost(self) -> int:
        return sum(await asyncio.gather(*(one.has_lost_its_session() for one in self._visitors)))

    async def read_all_files(self) -> None:
        """Lets each owner read every acknowledged file, and counts the wrong answers."""
        await asyncio.gather(*(one.read_files() for one in self._visitors))


class Visitor:
    """One with an even number is a browser with a cookie. The others send only a token."""

    reads_back = 1.0  # this share of its orders

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._ledger = load.ledger
        self._random = random.Random(number)  # noqa: S311  # the same mix in each run
        self._address = f"127.2.0.{number + 1}"
        self._is_browser = number % 2 == 0
        self._browser = Browser(load.url, self._address)
        self._email = f"visitor-{number}@example.com"
        self._password = f"the secret of number {number}"
        self._due = 0.0
        self._products: list[str] = []
        self._stock = load.stock
        self.is_logged_in = False
        self._kept = Browser(load.url, self._address)
        self._trail: deque[str] = deque(maxlen=4)  # its last requests
        self._doings: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (30 * load.reads, self._look_around),
            (15 * load.reads, self._who_am_i),
            (12, self._order),
            (12, self._review),
            (3, self._upload),
            (10 * load.reads, self._look_at_a_file),
            (2, self._log_in_again),
            (4, self._try_an_ended_session),
            (1, self._somebody_new),
        ]

    async def visit(self) -> None:
        weights, doings = zip(*self._doings, strict=True)
        while not self._load.is_over:
            try:
                if not self.is_logged_in:
                    await self._begin()
                for doing in self._random.choices(doings, weights, k=10):
                    await doing()
                    if self._load.is_over:
                        break
            except GoneWrongError:
                continue
        self._browser.close()

    async def _begin(self) -> None:
        if self._email not in self._ledger.accounts:
            await self._register(self._browser, self._email, self._password)
        else:
            await self._log_in()
        if not self._is_browser:
            await self._log_in()
        self.is_logged_in = True

    async def _register(self, browser: Browser, email: str, password: str) -> None:
        person = {"email": email, "password": password}
        answer = await self._ask("POST", "/accounts", person, browser=browser, expected=(201, 409))
        if answer.status == 409:  # an answer that was lost
            await self._ask("POST", "/session", person, browser=browser)
        self._ledger.note("account", email=email)

    async def _log_in(self) -> None:
        person = {"email": self._email, "password": self._password}
        if self._is_browser:
            await self._ask("POST", "/session", person)
        else:
            self._browser.cookies.clear()
            self._browser.token = ""
            answer = await self._ask("POST", "/tokens", person, expected=(201,))
            self._browser.token = answer.json()["token"]

    async def _log_in_again(self) -> None:
        old = self._browser.token or self._browser.cookies.get("__Host-session", "")
        self.is_logged_in = False  # also when there is no good answer: the session may have ended
        if self._is_browser:
            await self._ask("DELETE", "/session", expected=(204,))
        else:
            # Sent twice, the first may have ended it.
            await self._ask("DELETE", "/tokens/current", expected=(204,), again=(204, 401))
        self._ledger.note("ended", token=old)
        await self._is_ended(old)
        await self._log_in()
        self.is_logged_in = True

    async def _try_an_ended_session(self) -> None:
        if self._ledger.ended:
            await self._is_ended(self._random.choice(self._ledger.ended))

    async def _is_ended(self, token: str) -> None:
        if await self.lives_again(token):
            raise self._fault("revived", "a session that had ended")

    async def lives_again(self, token: str) -> bool:
        """As a thief would try it, who knows nothing else."""
        thief = Browser(self._load.url, self._address)
        thief.token = token
        try:
            answer = await self._ask("GET", "/me", browser=thief, expected=(200, 401))
        finally:
            thief.close()
        return answer.status == 200

    async def _somebody_new(self) -> None:
        browser = Browser(self._load.url, next(self._load.addresses))
        email = f"{uuid4().hex}@example.com"
        try:
            await self._register(browser, email, "the secret of somebody new")
            answer = await self._ask("GET", "/me", browser=browser)
        finally:
            browser.close()
        if answer.json()["email"] != email:
            raise self._fault("stale", "GET /me after registering")

    async def _look_around(self) -> None:
        page = await self._ask("GET", "/products")
        self._products = [one["id"] for one in page.json()["products"]]
        await self._look_at(self._random.choice(self._products))

    async def _look_at(self, product: str) -> int:
        stock: int = (await self._ask("GET", f"/products/{product}")).json()["stock"]
        self._stock[product] = min(stock, self._stock.get(product, stock))
        return stock

    async def _who_am_i(self) -> None:
        me = (await self._ask("GET", "/me")).json()
        if me["email"] != self._email:
            raise self._fault("failed", "GET /me: somebody else")

    async def _order(self) -> None:
        if not self._products:
            await self._look_around()
        key = {"Idempotency-Key": uuid4().hex}
        product = self._random.choice(self._products)
        items = {"items": [{"product_id": product, "quantity": 1}]}
        most = self._stock.get(product, sys.maxsize)
        placed = (await self._ask("POST", "/orders", items, key, expected=(201,))).json()["id"]
        self._ledger.note("orders", id=placed)
        if self._random.random() >= self.reads_back:
            return
        listed = (await self._ask("GET", "/orders?limit=5")).json()["orders"]
        if listed[:1] == [] or listed[0]["id"] != placed:
            raise self._fault("stale", "GET /orders after an order")
        # Nobody fills the shelves, so a cached product shows the order by a smaller stock.
        if await self._look_at(product) >= most:
            raise self._fault("stale", STOCK)
        if self._random.random() < 0.2:
            twice = (await self._ask("POST", "/orders", items, key, expected=(201,))).json()["id"]
            if twice != placed:
                raise self._fault("failed", "an order was placed twice")

    async def _review(self) -> None:
        text = {"text": f"Well made, {uuid4().hex}."}
        added = (await self._ask("POST", "/reviews", text, expected=(201,))).json()["id"]
        self._ledger.note("reviews", id=added)
        listed = (await self._ask("GET", "/reviews")).json()
        if added not in [one["id"] for one in listed]:
            raise self._fault("stale", "GET /reviews after a review")

    async def _upload(self) -> None:
        content = GIF + uuid4().bytes
        announced = {"content_type": "image/gif", "size": len(content)}
        started = (await self._ask("POST", "/uploads", announced, expected=(201,))).json()
        send_to = started["send_to"]
        await self._send(
            send_to["method"],
            send_to["url"],
            content,
            send_to["headers"],
            expected=(200, 201, 204),
            again=(200, 201, 204, 409),  # sent twice, the first may have arrived
        )
        completion = f"/uploads/{started['id']}/completion"
        done = (await self._ask("POST", completion, {})).json()
        digest = hashlib.sha256(content).hexdigest()
        if done["sha256"] != digest:
            raise self._fault("failed", "an upload with other bytes")
        self._ledger.note("uploads", id=started["id"], sha256=digest, email=self._email)
        await self._read_back(started["id"], digest)

    async def _look_at_a_file(self) -> None:
        if kept := self._ledger.files.get(self._email):
            await self._read_back(*self._random.choice(kept))

    async def _read_back(self, upload: str, digest: str) -> None:
        link = await self._ask("GET", f"/uploads/{upload}/image", expected=(307, 404))
        if link.status == 404:
            raise self._fault("lost", f"upload {upload}")
        file = await self._send("GET", link.header("location"), expected=(200, 307, 404))
        if file.status == 307:  # while files move, the link leads to the app, which sends on to S3
            file = await self._send("GET", file.header("location"), expected=(200, 404))
        if hashlib.sha256(file.body).hexdigest() != digest:
            raise self._fault("lost", f"the file of {upload}: {file.status}")

    async def keep_a_session(self) -> None:
        if self._email not in self._ledger.kept:
            person = {"email": self._email, "password": self._password}
            answer = await self._ask("POST", "/tokens", person, browser=self._kept, expected=(201,))
            self._ledger.note("kept", email=self._email, token=answer.json()["token"])
        self._kept.token = self._ledger.kept[self._email]
        self._kept.close()

    async def has_lost_its_session(self) -> bool:
        try:
            answer = await self._ask("GET", "/me", browser=self._kept, expected=(200, 401))
        except GoneWrongError:  # counted as failed
            return False
        finally:
            self._kept.close()
        return answer.status == 401

    async def read_files(self) -> None:
        for upload, digest in self._ledger.files.get(self._email, []):
            with suppress(GoneWrongError):
                await self._read_back(upload, digest)
        self._browser.close()

    async def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        sent = dict(headers or {})
        if content:
            sent["Content-Type"] = "application/json"
        return await self._send(method, path, content, sent, **options)

    async def _send(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        browser: Browser | None = None,
        expected: tuple[int, ...] = (200,),
        again: tuple[int, ...] | None = None,
    ) -> Answer:
        browser = browser or self._browser
        await self._wait_for_the_turn()
        browser.base, counts = self._load.url, self._load.counts
        # A request may end after the time that it was announced for.
        fault = partial(self._fault, announced=self._load.announced)
        begun = time.perf_counter()
        what = f"{method} {path.partition('?')[0]}"
        result = "no answer"
        try:
            try:
                answer = await browser.ask(method, path, content, headers)
                # The process died. HAProxy says so to the first request of a connection.
                if answer.status == 502 and method != "GET":
                    raise NoAnswerError("502")
            except NoAnswerError:
                if method == "GET":
                    raise
                counts.asked_again += 1
                # Retry-After. HAProxy may send it to the dying process again.
                await asyncio.sleep(1)
                answer = await browser.ask(method, path, content, headers)
                expected = again or expected
            result = f"{answer.status} {answer.header('x-request-id')}"
        except NoAnswerError as error:
            raise fault("failed", f"{what}: {error}", away=True) from error
        finally:
            took = (time.perf_counter() - begun) * 1000
            counts.milliseconds.append(took)
            self._trail.append(f"{datetime.now(UTC):%T.%f} after {took:.0f} ms {what} {result}")
        if answer.status in expected:
            return answer
        if answer.status == 401 and self.is_logged_in and browser is self._browser:
            self.is_logged_in = False
            raise fault("logged_out", what)
        said = f"{what}: {answer.status} {answer.body[:200]!r}"
        raise fault("failed", said, away=answer.status in AWAY)

    def _fault(self, kind: str, what: str, **options: bool) -> GoneWrongError:
        who = f"{self._email}, {'cookie' if self._is_browser else 'token'}"
        told = "\n    ".join((f"{what} ({who})", *self._trail))
        return self._load.fault(kind, told, **options)

    async def _wait_for_the_turn(self) -> None:
        now = time.perf_counter()
        await asyncio.sleep(max(0.0, self._due - now))
        self._due = max(self._due + self._load.interval, now)
