# Rung's file: advancing to another stage may change it.
"""Tests that a copy drains after SIGTERM, each in a separate process."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from app.infra.copies.draining import AT_ONCE_SECONDS
from dev.copies.stack_copy import Copy
from dev.pytest_plugin import Services
from tests.infra.conftest import until
from tests.infra.copies.stack_shop import SERVE
from tests.infra.copies.stack_visitors import Answer, Browser, ask

type Start = Callable[[str], Copy]


@pytest.fixture
def start(services: Services, tmp_path: Path) -> Iterator[Start]:
    """Starts a copy with this drain time, and waits until it is ready."""
    with ExitStack() as started:

        def start(drain_seconds: str) -> Copy:
            environment = {**os.environ, "DRAIN_SECONDS": drain_seconds}
            copy = started.enter_context(Copy(tmp_path / "app", environment, SERVE).running())
            copy.wait_until_ready()
            return copy

        yield start


async def no_longer_ready(copy: Copy) -> Answer:
    async with asyncio.timeout(300):
        while True:
            answer = await ask(copy.url, "GET", "/ready")
            if answer.status != 200:
                return answer
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_after_sigterm_a_copy_is_not_ready_serves_on_and_ends(start: Start) -> None:
    copy = start("8")
    with closing(Browser(copy.url)) as browser:
        before = await browser.ask("GET", "/products")

        copy.stop()

        ready = await no_longer_ready(copy)
        assert ready.status == 503
        assert ready.body == b'{"status":"unavailable","unavailable":["draining"]}'
        during = await browser.ask("GET", "/products")
        assert (before.status, during.status) == (200, 200)
        assert "connection" not in before.headers
        assert during.headers["connection"] == "close"
        async with asyncio.timeout(300):
            later = during
            while later.headers["date"] == during.headers["date"]:
                later = await browser.ask("GET", "/products")
        assert later.headers["connection"] == "close"
    assert await asyncio.to_thread(copy.wait) == 0


@pytest.mark.slow
async def test_a_request_that_lasts_longer_than_the_drain_is_answered(start: Start) -> None:
    copy = start("0.1")
    slow = asyncio.create_task(ask(copy.url, "GET", "/slow?seconds=2"))
    await until(lambda: "the slow request has arrived" in copy.log)

    copy.stop()

    assert (await slow).body == b'"at last"'
    assert await asyncio.to_thread(copy.wait) == 0


@pytest.mark.slow
async def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    copy = start("600")

    copy.stop()
    await no_longer_ready(copy)
    await asyncio.sleep(AT_ONCE_SECONDS + 0.1)
    copy.stop()

    assert await asyncio.wait_for(asyncio.to_thread(copy.wait), 300) == 128 + 15


@pytest.mark.slow
async def test_two_concurrent_signals_start_one_drain(start: Start) -> None:
    ended = None
    for _ in range(3):  # if the machine stops a process between the two, they are not concurrent
        copy = start("1")
        copy.stop()
        await asyncio.sleep(0.1)
        copy.stop()
        if (ended := await asyncio.to_thread(copy.wait)) == 0:
            break

    assert ended == 0
