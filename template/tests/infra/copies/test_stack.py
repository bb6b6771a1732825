# Rung's file: advancing to another stage may change it.
"""Copies behind a real HAProxy, configured by deploy/haproxy.cfg: rolled, killed and multiplied."""

import asyncio
import csv
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self
from uuid import UUID

import httpx
import pytest

from app.infra.answers import HEADERS
from app.infra.http_limits import MAX_FIELDS
from dev import ports
from dev.copies import haproxy
from dev.copies.stack_copy import Copy
from dev.pytest_plugin import Services
from dev.server import ServerError
from tests.infra.conftest import connected, execute_sql, until
from tests.infra.copies.stack_shop import SERVE, TABLE
from tests.infra.copies.stack_visitors import VISITORS, AnswerCutShort, Visitors, ask

# How often all three copies are replaced. Each start costs a second of a processor.
ROLLS = int(os.environ.get("ROLLS", "3"))
REQUESTS_A_ROLL = 600

# Checks every 0.1 s and a drain of 0.6 s: a third and a fifth of deploy/haproxy.cfg and
# DRAIN_SECONDS. The order of events is the same, in less time.
CHECK_EVERY = "100ms"
DRAIN_SECONDS = "0.6"

# The only effect on a read when its copy is killed.
CUT_SHORT = f"GET: {AnswerCutShort()!r}"


@pytest.fixture
def installed() -> None:
    try:
        haproxy.program()
    except ServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


class Shop:
    """Slots for copies behind a load balancer. Most are empty."""

    PLACES = 9

    def __init__(self, services: Services, folder: Path) -> None:
        self._services = services
        self.folder = folder
        self._stack = ExitStack()
        self._places = [ports.unused() for _ in range(self.PLACES)]
        self._empty = list(self._places)

    def __enter__(self) -> Self:
        folder, port = self.folder / "haproxy", ports.unused()
        balancer = haproxy.HAProxy(folder, port, self._places, check_every=CHECK_EVERY)
        self.url = self._stack.enter_context(balancer.running()).url
        written = (self.folder / "haproxy" / "haproxy.cfg").read_text()
        self._status = (
            "http://" + written.partition("frontend status")[2].split("bind ")[1].split()[0]
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def open(self, number: int) -> list[Copy]:
        """Starts `number` copies, and waits until the load balancer sees them as ready."""
        copies = [self._start(self._empty.pop(0)) for _ in range(number)]
        for copy in copies:
            await asyncio.to_thread(copy.wait_until_ready)
        await self.until_seen(copies)
        return copies

    async def until_seen(self, copies: Sequence[Copy]) -> None:
        """Before its first check, the load balancer counts each slot as taken."""
        wanted = {self._place(copy) for copy in copies}
        async with asyncio.timeout(300):
            while True:
                places = await self._rows()
                ready = {name for name, row in places.items() if row["status"] == "UP"}
                asked = [row["check_status"] != "INI" for row in places.values()]
                if all(asked) and wanted <= ready:
                    return
                await asyncio.sleep(0.05)

    async def until_late(self, copy: Copy) -> str:
        """Its status, once the load balancer has waited for it in vain."""
        async with asyncio.timeout(300):
            while True:
                row = (await self._rows())[self._place(copy)]
                if row["check_status"].endswith("L7TOUT"):  # "* " before it: another check runs
                    return row["status"]
                await asyncio.sleep(0.05)

    async def until_asked(self, times: int) -> None:
        """The load balancer has read this many requests."""

        async def are_read() -> bool:
            return int((await self._rows())["FRONTEND"]["req_tot"]) >= times

        await until(are_read)

    async def _rows(self) -> dict[str, dict[str, str]]:
        """By copy, and FRONTEND for all together."""
        async with httpx.AsyncClient() as client:
            rows = csv.DictReader((await client.get(f"{self._status}/;csv")).text.splitlines())
        return {row["svname"]: row for row in rows if row["# pxname"] != "status"}

    def _place(self, copy: Copy) -> str:
        return f"app-{self._places.index(copy.port) + 1}"

    async def close(self, copies: Sequence[Copy]) -> None:
        """Stops copies as a deploy does, one shortly after the other."""
        for copy in copies:
            copy.stop()
            await asyncio.sleep(0.1)
        for copy in copies:
            await asyncio.to_thread(copy.wait)
            self._empty.append(copy.port)

    async def orders(self) -> list[str]:
        """The keys of all orders. An order placed twice appears twice."""
        async with connected(self._services.database_url) as connection:
            return [row["key"] for row in await connection.fetch("SELECT key FROM placed")]

    async def until_placed(self, number: int) -> None:
        async def placed() -> bool:
            return len(await self.orders()) == number

        await until(placed)

    def _start(self, port: int) -> Copy:
        folder = self.folder / f"app-{port}"
        folder.mkdir(exist_ok=True)
        (folder / "port").write_text(str(port))
        environment = {
            **os.environ,
            "DRAIN_SECONDS": DRAIN_SECONDS,
            "FORWARDED_ALLOW_IPS": "127.0.0.1",
            "LOG_LEVEL": "WARNING",
        }
        return self._stack.enter_context(Copy(folder, environment, SERVE).running())


@pytest.fixture
def shop(services: Services, installed: None, tmp_path: Path) -> Iterator[Shop]:
    asyncio.run(execute_sql(services.database_url, TABLE))
    with Shop(services, tmp_path) as shop:
        yield shop


@pytest.mark.slow
async def test_all_copies_are_replaced_and_no_request_fails(shop: Shop) -> None:
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
async def test_a_copy_that_is_killed_fails_only_the_writes_it_was_carrying_out(shop: Shop) -> None:
    doomed, *_ = await shop.open(3)
    async with Visitors(shop.url) as visitors:
        await visitors.some_more()
        await asyncio.to_thread(doomed.die)
        await visitors.some_more()

    assert {failure for failure in visitors.failures if failure.startswith("GET")} <= {CUT_SHORT}
    assert visitors.failures.total() <= VISITORS
    placed = await shop.orders()
    assert len(placed) == len(set(placed))
    assert visitors.ordered <= set(placed)


@pytest.mark.slow
async def test_a_busy_copy_that_answers_one_check_late_stays(shop: Shop) -> None:
    [busy] = await shop.open(1)
    for _ in range(3):  # if the machine stops this process for 2 s, it sees two late checks
        await shop.until_seen([busy])
        os.kill(busy.pid, signal.SIGSTOP)
        reading = asyncio.create_task(ask(shop.url, "GET", "/slow?seconds=0"))
        try:
            status = await shop.until_late(busy)
        finally:
            os.kill(busy.pid, signal.SIGCONT)
        answer = await reading
        if status.startswith("UP"):
            break

    assert status.startswith("UP")
    assert answer.status == 200


@pytest.mark.slow
async def test_requests_of_a_killed_copy_are_repeated_elsewhere_except_writes(shop: Shop) -> None:
    doomed, _ = await shop.open(2)
    reads = [asyncio.create_task(ask(shop.url, "GET", "/slow?seconds=1")) for _ in range(6)]
    orders = [
        asyncio.create_task(ask(shop.url, "POST", f"/orders/{number}?pause=6"))
        for number in range(6)
    ]
    await shop.until_placed(6)

    await asyncio.to_thread(doomed.die)

    assert [(await read).status for read in reads] == [200] * 6
    answered = Counter([(await order).status for order in orders])
    assert answered.keys() == {201, 502}
    assert sorted(await shop.orders()) == sorted(map(str, range(6)))


@pytest.mark.usefixtures("installed")
def test_a_status_port_that_another_process_took_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port, free = ports.unused(), ports.unused()
        found = iter([other.getsockname()[1], free])
        monkeypatch.setattr(ports, "unused", lambda: next(found))

        with haproxy.HAProxy(tmp_path, port, []).running():
            assert f"bind 127.0.0.1:{free}\n" in (tmp_path / "haproxy.cfg").read_text()


class SlowClient:
    """Sends a body of 60,000 bytes one byte at a time, from another address than the visitors."""

    def __init__(self, url: str, method: str = "POST") -> None:
        self._port = int(url.rpartition(":")[2])
        self._head = f"{method} /notes HTTP/1.1\r\nHost: shop\r\nContent-Length: 60000\r\n\r\n"

    async def answer(self) -> tuple[int, str]:
        """Its status and X-Request-ID. The answer comes before the body has arrived."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=("127.0.0.2", 0)
        )
        with closing(writer):
            writer.write(self._head.encode())
            answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
            while not answer.done():
                writer.write(b"x")
                await asyncio.wait([answer], timeout=2)
            status, *headers = (await answer).decode().lower().splitlines()
            ids = [line for line in headers if line.startswith("x-request-id: ")]
            return int(status.split()[1]), "".join(ids).removeprefix("x-request-id: ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 without a setting")
@pytest.mark.slow
async def test_450_slow_bodies_of_one_client_do_not_disturb_others(shop: Shop) -> None:
    await shop.open(2)
    slow = [asyncio.create_task(SlowClient(shop.url).answer()) for _ in range(200)]
    await shop.until_asked(200)  # a newer HAProxy may accept all 450 before it reads the first
    slow += [asyncio.create_task(SlowClient(shop.url).answer()) for _ in range(250)]
    await shop.until_asked(450)

    async with Visitors(shop.url) as visitors, asyncio.timeout(300):
        answers = await asyncio.gather(*slow)

    refused = Counter(status for status, _ in answers)
    assert len({UUID(request_id) for _, request_id in answers}) == len(answers)
    assert visitors.failures == {}
    assert visitors.requests > 10 * VISITORS
    assert refused.keys() == {408, 429}
    assert refused[408] <= 200


@pytest.mark.slow
async def test_a_slow_body_reaches_no_copy_whatever_its_method(shop: Shop) -> None:
    """After a copy's answer to a GET, HAProxy waits for the rest of its body."""
    await shop.open(1)
    methods = ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
    slow = [SlowClient(shop.url, method).answer() for method in methods]
    answers = await asyncio.gather(*slow)

    assert {status for status, _ in answers} == {408}


@pytest.mark.slow
async def test_scaling_to_four_copies_and_back_fails_no_request(shop: Shop) -> None:
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
async def test_copies_receive_the_clients_address_its_scheme_and_a_request_id(shop: Shop) -> None:
    await shop.open(1)

    claims = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
    claims |= {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}  # 01: sample it
    own_id = {"X-Request-ID": "order-7-8-9"}
    claimed = await ask(shop.url, "GET", "/caller", headers=claims | own_id)
    nameless = await ask(shop.url, "GET", "/caller")

    assert claimed.body == nameless.body
    received = {"address": "127.0.0.1", "url": f"{shop.url}/caller", "trace": ""}
    assert json.loads(claimed.body) == received
    assert claimed.headers["x-request-id"] == "order-7-8-9"
    assert UUID(nameless.headers["x-request-id"])


async def test_without_a_copy_the_load_balancer_answers_like_the_app(shop: Shop) -> None:
    await shop.open(0)

    answer = await ask(shop.url, "GET", "/products", headers={"X-Request-ID": "order-7-8-9"})

    assert answer.status == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    for name, value in HEADERS:
        assert answer.headers[name.decode()] == value.decode()
    assert answer.headers["x-request-id"] == "order-7-8-9"
    nameless = await ask(shop.url, "GET", "/products", headers={"X-Request-ID": ""})
    assert UUID(nameless.headers["x-request-id"])


async def test_the_load_balancer_takes_as_many_headers_as_a_copy(shop: Shop) -> None:
    await shop.open(0)

    answer = await ask(shop.url, "GET", "/", headers={f"X-{n}": "x" for n in range(MAX_FIELDS)})

    assert answer.status == 503  # only because there is no copy


async def test_the_load_balancer_logs_neither_paths_nor_queries(shop: Shop) -> None:
    failed = {"X-Request-ID": "order-7-8-9"}
    await ask(shop.url, "GET", "/files/hunter2?signature=hunter2", headers=failed)

    log = shop.folder / "haproxy" / "log"
    await until(lambda: "order-7-8-9" in log.read_text())
    assert "{order-7-8-9|files} GET HTTP/1.1" in log.read_text()
    assert "hunter2" not in log.read_text()
