"""Floods the service from one address while others use it, and says how they fared.

Runs in a generated repo of any stage: python -m floods.drive
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
from leaks.drive import Shop

from floods.flooder import Flooder

SECONDS = float(os.environ.get("SECONDS", "2"))
REQUESTS_A_SECOND = 50

MIB_GROWN = 20


class Others:
    """People who use the service during a flood."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.failed: Counter[str] = Counter()
        self.seconds: list[float] = []

    async def use_it(self) -> None:
        end = time.monotonic() + SECONDS
        using: list[asyncio.Task[None]] = []
        while time.monotonic() < end:
            path = "/me" if len(using) % 2 else "/products"
            using.append(asyncio.create_task(self._ask(path)))
            await asyncio.sleep(1 / REQUESTS_A_SECOND)
        await asyncio.gather(*using)

    async def _ask(self, path: str) -> None:
        begun = time.monotonic()
        try:
            answer = await self._client.get(path)
        except httpx.TransportError as error:
            self.failed[repr(error)] += 1
        else:
            if answer.status_code != 200:
                self.failed[f"{path}: {answer.status_code}"] += 1
        self.seconds.append(time.monotonic() - begun)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[-1]


async def among_others(client: httpx.AsyncClient, flood: str = "") -> Others:
    others = Others(client)
    with flooding(flood, client.base_url) if flood else nullcontext():
        await asyncio.sleep(0.5)
        await others.use_it()
    return others


@contextmanager
def flooding(flood: str, url: httpx.URL) -> Iterator[None]:
    """By a process with the least priority, because a flooder has its own processors."""
    command = [sys.executable, "-m", "floods.flooder", flood, str(url)]
    process = subprocess.Popen(["nice", "-n", "19", *command], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        process.stdout.readline()  # until it begins
        yield
        assert process.poll() is None, f"{flood} ended early"
    finally:
        process.kill()
        process.wait()


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(kib) / 1024


async def flooded_by(name: str, client: httpx.AsyncClient, pid: int) -> tuple[Others, float]:
    """The effect on others, and the memory in MiB that the app has not given back."""
    before = resident_mib(pid)
    others = await among_others(client, name)
    for _ in range(50):
        grown = resident_mib(pid) - before
        if grown < MIB_GROWN:
            break
        await asyncio.sleep(0.2)
    return others, grown


async def flooded(shop: Shop) -> dict[str, Any]:
    ada = {"email": "ada@example.com", "password": "the secret of Ada"}
    report: dict[str, Any] = {}
    async with httpx.AsyncClient(base_url=shop.url, timeout=30) as client:
        token = (await client.post("/accounts", json=ada)).headers["set-cookie"].partition(";")[0]
        client.cookies.clear()
        client.headers["Cookie"] = token
        names = [name for name in vars(Flooder) if not name.startswith("_")]
        await among_others(client, "guesses")  # everything is loaded
        quiet = await among_others(client)
        assert quiet.failed == {}, quiet.failed
        for name in names if len(sys.argv) < 2 else sys.argv[1:]:
            for _ in range(2):  # the second reuses the allocator's memory
                others, grown = await flooded_by(name, client, shop.process.pid)
                if grown < MIB_GROWN:
                    break
            report[name] = {
                "requests": len(others.seconds),
                "failed": others.failed,
                "p99 ms": round(others.p99 * 1000),
                "times the quiet p99": round(others.p99 / quiet.p99, 1),
                "grown MiB": round(grown, 1),
            }
    return report


def main() -> None:
    with ExitStack() as stack:
        shop = Shop(stack, (sys.executable, "-m", "app.infra.serve"))
        print(json.dumps(asyncio.run(flooded(shop))))


if __name__ == "__main__":
    main()
