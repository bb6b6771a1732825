# Rung's file: advancing to another stage may change it.
"""Copies behind a real HAProxy, configured by deploy/haproxy.cfg: rolled, killed and multiplied."""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import asyncpg
import pytest

from dev import haproxy, ports, stack_copy
from dev.pytest_plugin import Services
from dev.stack_copy import Copy
from tests.infra.stack_shop import SERVE, TABLE
from tests.infra.stack_visitors import Answer, Browser, Visitors

# How often all copies are replaced, and the requests that there must be meanwhile at least.
ROLLS = int(os.environ.get("ROLLS", "10"))
REQUESTS_A_ROLL = 600

# Copies are asked every 0.1 s here and drain for 0.6 s, a third and a fifth of deploy/haproxy.cfg
# and DRAIN_SECONDS: the same order of things in less time.
CHECK_EVERY = "100ms"
DRAIN_SECONDS = "0.6"


@pytest.fixture
def installed() -> None:
    try:
        haproxy.program()
    except haproxy.HAProxyError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


class Shop:
    """Places for copies behind a load balancer, most of them empty."""

    PLACES = 9

    def __init__(self, services: Services, folder: Path) -> None:
        self._services = services
        self._folder = folder
        self._stack = ExitStack()
        self._places = [ports.unused() for _ in range(self.PLACES)]
        self._empty = list(self._places)

    def __enter__(self) -> Self:
        port = ports.unused()
        balancer = haproxy.running(self._places, port=port, check_every=CHECK_EVERY)
        self.url = self._stack.enter_context(balancer)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def open(self, number: int) -> list[Copy]:
        """So many more copies, once the load balancer has seen that they are ready."""
        copies = [self._start(self._empty.pop(0)) for _ in range(number)]
        for copy in copies:
            await asyncio.to_thread(copy.wait_until_ready)
        await asyncio.sleep(0.4)
        return copies

    async def close(self, copies: Sequence[Copy]) -> None:
        """As a deploy does it, one shortly after the other."""
        for copy in copies:
            copy.stop()
            await asyncio.sleep(0.1)
        for copy in copies:
            await asyncio.to_thread(copy.wait)
            self._empty.append(copy.port)

    async def orders(self) -> list[str]:
        """Their keys, as often as they were placed."""
        connection = await asyncpg.connect(self._services.database_url)
        rows = await connection.fetch("SELECT key FROM placed")
        await connection.close()
        return [row["key"] for row in rows]

    def _start(self, port: int) -> Copy:
        folder = self._folder / f"app-{port}"
        folder.mkdir(exist_ok=True)
        (folder / "port").write_text(str(port))
        environment = {
            **os.environ,
            "DRAIN_SECONDS": DRAIN_SECONDS,
            "FORWARDED_ALLOW_IPS": "127.0.0.1",
            "LOG_LEVEL": "WARNING",
        }
        return self._stack.enter_context(stack_copy.running(folder, environment, SERVE))


@pytest.fixture
def shop(services: Services, installed: None, tmp_path: Path) -> Iterator[Shop]:
    async def prepare() -> None:
        connection = await asyncpg.connect(services.database_url)
        await connection.execute(TABLE)
        await connection.close()

    asyncio.run(prepare())
    with Shop(services, tmp_path) as shop:
        yield shop


@pytest.mark.slow
async def test_copies_are_replaced_ten_times_and_nobody_notices(shop: Shop) -> None:
    copies = await shop.open(3)
    async with Visitors(shop.url) as visitors:
        leaving: list[asyncio.Task[None]] = []
        for _ in range(ROLLS):
            new = await shop.open(3)
            await asyncio.gather(*leaving)
            leaving = [asyncio.create_task(shop.close(copies))]
            copies = new
        await asyncio.gather(*leaving)
        await visitors.until(ROLLS * REQUESTS_A_ROLL)

    assert visitors.failures == {}
    assert sorted(await shop.orders()) == sorted(visitors.ordered)


@pytest.mark.slow
async def test_a_copy_that_is_killed_fails_only_writes_that_it_was_carrying_out(
    shop: Shop,
) -> None:
    doomed, *_ = await shop.open(3)
    async with Visitors(shop.url) as visitors:
        await visitors.some_more()
        slow = [asyncio.create_task(Browser(shop.url).ask("GET", "/slow?seconds=1")) for _ in "abc"]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(doomed.die)
        await visitors.some_more()
        answers = await asyncio.gather(*slow)

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [failed for failed in visitors.failures if failed.startswith("GET")] == []
    assert visitors.failures.total() <= 16
    placed = await shop.orders()
    assert len(placed) == len(set(placed))
    assert visitors.ordered <= set(placed)


@pytest.mark.slow
async def test_one_copy_becomes_four_and_one_again_and_nobody_notices(shop: Shop) -> None:
    [first] = await shop.open(1)
    async with Visitors(shop.url) as visitors:
        await visitors.some_more()
        others = await shop.open(3)
        await visitors.some_more()
        await shop.close([first, *others[:2]])
        await visitors.some_more()

    assert visitors.failures == {}
    assert sorted(await shop.orders()) == sorted(visitors.ordered)
    served = [copy.port for copy in others if not copy.has_ended()]
    assert len(served) == 1


@pytest.mark.slow
async def test_copies_are_told_the_clients_own_address_and_scheme(shop: Shop) -> None:
    await shop.open(1)
    browser = Browser(shop.url)

    claims = {"X_Forwarded_For": "6.6.6.6", "X_Forwarded_Proto": "https", "X_Request_ID": "mine-7-8-9"}
    answer = await browser.ask("GET", "/caller", **claims)
    own_id = await browser.ask("GET", "/caller")
    browser.close()

    assert answer.body.decode() == f'{{"address":"127.0.0.1","url":"{shop.url}/caller"}}'
    assert answer.headers["x-request-id"] == "mine-7-8-9"
    assert len(own_id.headers["x-request-id"]) == 36


async def test_without_a_copy_the_load_balancer_says_so_as_the_app_would(shop: Shop) -> None:
    async def until_it_knows() -> Answer:
        while True:
            browser = Browser(shop.url)
            answer = await browser.ask("GET", "/products")
            browser.close()
            if answer.status == 503:
                return answer
            await asyncio.sleep(0.05)

    answer = await asyncio.wait_for(until_it_knows(), 10)

    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"


@pytest.fixture(autouse=True)
def report_time() -> Iterator[None]:
    t=time.time(); yield; print("took", time.time()-t)
